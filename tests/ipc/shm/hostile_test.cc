// A peer that writes rubbish into the segment. Whatever it writes, calls return
// in time, with any Status and any value; none crashes, leaves the segment, or,
// under the sanitizers, does what the language does not define.
//
// The one thing a peer may do is to keep a lock for as long as it lives, be it
// in another one's name: calls without a time-out wait for that.
#include <fcntl.h>
#include <sanitizer/asan_interface.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iterator>
#include <new>
#include <ostream>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/memory.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/arena.h"
#include "ipc/shm/array.h"
#include "ipc/shm/barrier.h"
#include "ipc/shm/condition_variable.h"
#include "ipc/shm/event.h"
#include "ipc/shm/hash_map.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/offset_ptr.h"
#include "ipc/shm/recursive_mutex.h"
#include "ipc/shm/robust_lock.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/segment_layout.h"
#include "ipc/shm/semaphore.h"
#include "ipc/shm/shared_mutex.h"
#include "ipc/shm/value.h"
#include "ipc/shm/vector.h"
#include "tests/ipc/shm/memory_names.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using internal::HeaderSize;
using internal::RobustLock;
using internal::SegmentHeader;

// How long a call may take, whatever its time-out, which is some milliseconds.
constexpr absl::Duration kSlack = absl::Seconds(5);
constexpr unsigned kHangSeconds = 20;
constexpr size_t kUserArea = HeaderSize(Segment::kMaxParticipants);

// What each of some processes is doing, where its parent can see it.
constexpr int kProcesses = 3;
std::atomic<const char*>* Doings() {
  static auto* const doings = [] {
    void* const page =
        mmap(nullptr, sizeof(std::atomic<const char*>) * kProcesses,
             PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return new (page) std::atomic<const char*>[kProcesses] {};
  }();
  return doings;
}

// Of this process: which of them it is, and what it found wrong.
int me = 0;
int failures = 0;

void Fail(const char* what) {
  const char* const doing = Doings()[me].load();
  fprintf(stderr, "%s: %s\n", doing == nullptr ? "" : doing, what);
  ++failures;
}

// A call, or several, that must end soon. One that never does ends the process
// by SIGALRM.
class Watch {
 public:
  explicit Watch(const char* name)
      : outer_(Doings()[me].exchange(name)), begin_(absl::Now()) {
    alarm(kHangSeconds);
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() {
    if (absl::Now() - begin_ > kSlack) Fail("took too long");
    alarm(outer_ == nullptr ? 0 : kHangSeconds);
    Doings()[me].store(outer_);
  }

 private:
  const char* const outer_;
  const absl::Time begin_;
};

template <typename Call>
auto Within(const char* name, Call call) {
  const Watch watch(name);
  return call();
}

// Runs `body` in another process, the `index`th.
Child RunAs(int index, const std::function<void(Child::Side)>& body) {
  Doings()[index].store(nullptr);
  return Child::Fork([&](Child::Side side) {
    me = index;
    failures = 0;
    body(side);
    return failures == 0 ? 0 : 1;
  });
}

void ExpectLives(Child& child, int index) {
  const int status = child.Wait();
  const char* const doing = Doings()[index].load();
  EXPECT_EQ(status, 0) << (doing == nullptr ? "" : doing);
}

// A segment, and what a peer who maps it can do to it. Behind the object that
// it is for are bytes that nobody may touch, which AddressSanitizer knows.
class Ground {
 public:
  explicit Ground(size_t bytes)
      : segment_(*Segment::CreateAnonymous(bytes + kFence)),
        other_(*Segment::FromFd(Duplicate())),
        mapping_(*Mapping::Create(segment_.fd(), kUserArea + bytes)),
        fence_(segment_.bytes().subspan(bytes)) {
    ASAN_POISON_MEMORY_REGION(fence_.data(), fence_.size());
  }
  Ground(const Ground&) = delete;
  Ground& operator=(const Ground&) = delete;
  ~Ground() { ASAN_UNPOISON_MEMORY_REGION(fence_.data(), fence_.size()); }

  UniqueFd Duplicate() const {
    return UniqueFd(fcntl(segment_.fd(), F_DUPFD_CLOEXEC, 0));
  }
  const Segment& segment() const { return segment_; }
  // Another participant that lives.
  const Segment& other() const { return other_; }
  // Everything up to the end of the object, from the header on.
  size_t size() const { return mapping_.size() / 8 * 8; }
  std::atomic<uint64_t>& Word(size_t offset) const {
    return *reinterpret_cast<std::atomic<uint64_t>*>(mapping_.data() + offset);
  }
  SegmentHeader& header() const {
    return *reinterpret_cast<SegmentHeader*>(mapping_.data());
  }
  std::atomic<uint8_t>& Byte(size_t offset) const {
    return *reinterpret_cast<std::atomic<uint8_t>*>(mapping_.data() + offset);
  }

  void Save() {
    saved_.clear();
    for (size_t i = 0; i < size(); i += 8) saved_.push_back(Word(i).load());
  }
  void Restore(size_t from = 0) {
    for (size_t i = from; i < size(); i += 8) {
      Word(i).store(saved_[i / 8], std::memory_order_relaxed);
    }
  }
  // Nobody holds anything, for all the memory says.
  void Wipe() const {
    for (size_t i = kUserArea + 8; i < size(); i += 8) Word(i).store(0);
  }

  size_t file_size() const { return size() + kFence; }

 private:
  static constexpr size_t kFence = 4096;

  Segment segment_;
  Segment other_;
  Mapping mapping_;
  absl::Span<std::byte> fence_;
  std::vector<uint64_t> saved_;
};

// One use of an object, at one moment of which a blow may fall.
class Stage {
 public:
  Stage(Segment segment, uint32_t seed)
      : segment_(std::move(segment)), random_(seed) {}

  void StrikeAt(int moment, std::function<void()> blow) {
    strike_at_ = moment;
    blow_ = std::move(blow);
  }
  // Calls without a time-out are not to wait for who is said to hold a lock and
  // lives.
  void FreeLocks() { free_locks_ = true; }

  const Segment& segment() const { return segment_; }
  std::mt19937& random() { return random_; }
  int moments() const { return moment_; }

  // A moment has come.
  void Now() {
    if (moment_++ == strike_at_) blow_();
  }
  absl::Duration Short() {
    return random_() % 16 == 0 ? absl::Milliseconds(1) : absl::ZeroDuration();
  }
  void BeforeUntimed(size_t lock_offset) {
    if (!free_locks_) return;
    auto& word = *reinterpret_cast<std::atomic<uint64_t>*>(
        segment_.bytes().data() + lock_offset);
    const uint64_t seen = word.load();
    const Participant owner = {
        static_cast<uint32_t>(seen & (RobustLock::kWanted - 1)) - 1,
        static_cast<uint32_t>(seen >> 32)};
    if ((seen & RobustLock::kOwner) != 0 && !segment_.IsDead(owner)) {
      word.store(0);
    }
  }

 private:
  Segment segment_;
  std::mt19937 random_;
  int moment_ = 0;
  int strike_at_ = -1;
  std::function<void()> blow_;
  bool free_locks_ = false;
};

template <typename T>
void UseValue(Stage& stage) {
  auto value = Within("Value::Attach",
                      [&] { return Value<T>::Attach(stage.segment(), 0); });
  if (!value.ok()) return;
  stage.Now();
  for (int i = 0; i < 2; ++i) {
    Within("Value::Load", [&] { value->Load().IgnoreError(); });
    Within("Value::LoadInto", [&] {
      T to;
      value->LoadInto(to).IgnoreError();
    });
    Within("Value::Store",
           [&] { value->Store(T(), stage.Short()).IgnoreError(); });
    Within("Value::Update", [&] {
      int calls = 0;
      value
          ->Update(
              [&](const T& old) {
                if (++calls == 1) stage.Now();
                return old;
              },
              stage.Short())
          .IgnoreError();
    });
    const uint64_t version = value->version();
    Within("Value::WaitForChange", [&] {
      value->WaitForChange(version + i, stage.Short()).IgnoreError();
    });
  }
}

template <typename T>
void UseArray(Stage& stage) {
  constexpr size_t kCount = 16;
  auto array = Within("Array::Attach", [&] {
    return Array<T>::Attach(stage.segment(), 0, kCount);
  });
  if (!array.ok()) return;
  stage.Now();
  {
    const Watch watch("Array::Guard");
    auto guard =
        Within("Array::Lock", [&] { return array->Lock(stage.Short()); });
    stage.Now();
    if (guard.ok()) {
      if (guard->span().size() != kCount) Fail("another size");
      for (T& element : guard->span()) element = T();
      stage.Now();
      if (guard->previous_owner_died() || stage.random()() % 2 == 0) {
        guard->MarkConsistent();
      }
    }
  }
  for (size_t i = 0; i < kCount; i += 5) {
    Within("Array::Get", [&] { array->Get(i, stage.Short()).IgnoreError(); });
    Within("Array::Set",
           [&] { array->Set(i, T(), stage.Short()).IgnoreError(); });
  }
  T copy[kCount];
  Within("Array::SnapshotInto", [&] {
    if (!array->SnapshotInto(absl::MakeSpan(copy)).ok()) return;
    bool same = true;
    for (const T& element : copy) same = same && element == copy[0];
    static std::atomic<bool> result;
    result.store(same);  // or nothing would be read
  });
  if constexpr (!std::is_same_v<T, bool>) {
    Within("Array::Snapshot", [&] { array->Snapshot().IgnoreError(); });
  }
}

void UseUndoableArray(Stage& stage) {
  auto array = Within("Array::Attach", [&] {
    return Array<uint32_t>::Attach(stage.segment(), 0, 16, {.undo = 4});
  });
  if (!array.ok()) return;
  stage.Now();
  {
    const Watch watch("Array::Guard");
    auto guard =
        Within("Array::Lock", [&] { return array->Lock(stage.Short()); });
    if (guard.ok()) {
      guard->Protect(stage.random()() % 16, 1).IgnoreError();
      stage.Now();
      guard->Protect(stage.random()() % 14, 3).IgnoreError();
      if (stage.random()() % 2 == 0) guard->RollBack();
      stage.Now();
      if (guard->previous_owner_died()) guard->MarkConsistent();
    }
  }
  Within("Array::Set", [&] { array->Set(3, 1, stage.Short()).IgnoreError(); });
}

constexpr size_t kArenaBytes = 512;
constexpr size_t kArenaUndo = 512;

void UseArena(Stage& stage) {
  using Map = HashMap<uint64_t, uint64_t>;
  using Numbers = Vector<uint32_t>;
  struct Both {
    OffsetPtr<Map::Header> map;
    OffsetPtr<Numbers::Header> numbers;
  };
  auto arena = Within("Arena::Attach", [&] {
    return Arena::Attach(stage.segment(), 0, kArenaBytes, kArenaUndo);
  });
  if (!arena.ok()) return;
  stage.Now();
  for (int i = 0; i < 2; ++i) {
    const Watch watch("Arena::Guard");
    auto guard =
        Within("Arena::Lock", [&] { return arena->Lock(stage.Short()); });
    if (!guard.ok()) continue;
    stage.Now();
    auto root = guard->root<Both>();
    const Both* both = root.ok() ? guard->Get(*root) : nullptr;
    if (both == nullptr) {
      const auto map = Map::Create(*guard, 3);
      const auto numbers = Numbers::Create(*guard);
      if (!map.ok() || !numbers.ok()) continue;
      const auto made = guard->New(Both{map->pointer(), numbers->pointer()});
      if (!made.ok()) continue;
      guard->SetRoot(*made).IgnoreError();
      both = guard->Get(*made);
    }
    stage.Now();
    if (auto map = Map::At(*guard, both->map); map.ok()) {
      const uint64_t key = stage.random()() % 4;
      const Watch inner("HashMap");
      map->Set(key, 1).IgnoreError();
      stage.Now();
      map->Erase(stage.random()() % 4).IgnoreError();
      if (const uint64_t* value = map->Find(key); value != nullptr) {
        static std::atomic<uint64_t> result;
        result.store(*value);  // or nothing would be read
      }
      map->ForEach([](uint64_t, uint64_t) {});
      if (stage.random()() % 8 == 0) map->Destroy().IgnoreError();
    }
    const auto savepoint = guard->MakeSavepoint();
    if (auto numbers = Numbers::At(*guard, both->numbers); numbers.ok()) {
      const Watch inner("Vector");
      for (uint32_t n = 0; n < 5; ++n) numbers->PushBack(n).IgnoreError();
      stage.Now();
      numbers->Change(1, 2).IgnoreError();
      numbers->PopBack().IgnoreError();
      if (stage.random()() % 8 == 0) numbers->Destroy().IgnoreError();
    }
    guard->usage().IgnoreError();
    if (stage.random()() % 3 == 0) guard->RollBack(savepoint);
    if (stage.random()() % 3 == 0) guard->RollBack();
    stage.Now();
  }
}

// Mutex and its kin.
template <typename M>
void UseLock(Stage& stage) {
  auto mutex = Within("Attach", [&] { return M::Attach(stage.segment(), 0); });
  if (!mutex.ok()) return;
  stage.Now();
  {
    const Watch watch("Guard");
    auto guard = Within("Lock", [&] { return mutex->Lock(stage.Short()); });
    stage.Now();
    if (guard.ok()) (void)guard->previous_owner_died();
    if constexpr (std::is_same_v<M, RecursiveMutex>) {
      auto inner = Within("Lock", [&] { return mutex->Lock(stage.Short()); });
      stage.Now();
      (void)mutex->depth();
    }
  }
  Within("AcquireFor", [&] { mutex->AcquireFor(stage.Short()).IgnoreError(); });
  Within("Unlock", [&] { mutex->Unlock().IgnoreError(); });
  Within("try_lock", [&] {
    if (mutex->try_lock()) mutex->unlock();
  });
  if constexpr (std::is_same_v<M, SharedMutex>) {
    {
      const Watch watch("SharedGuard");
      auto guard = Within("LockShared",
                          [&] { return mutex->LockShared(stage.Short()); });
      stage.Now();
      if (guard.ok()) (void)guard->previous_owner_died();
      auto second = Within("LockShared",
                           [&] { return mutex->LockShared(stage.Short()); });
    }
    Within("AcquireSharedFor",
           [&] { mutex->AcquireSharedFor(stage.Short()).IgnoreError(); });
    Within("UnlockShared", [&] { mutex->UnlockShared().IgnoreError(); });
    Within("AcquireFor", [&] {
      if (mutex->AcquireFor(stage.Short()).ok()) mutex->Unlock().IgnoreError();
    });
  }
}

template <typename S>
void UseSemaphore(Stage& stage) {
  constexpr size_t kLock = offsetof(internal::SemaphoreHeader, monitor);
  auto semaphore = Within("Semaphore::Attach",
                          [&] { return S::Attach(stage.segment(), 0, 3); });
  if (!semaphore.ok()) return;
  stage.Now();
  for (int i = 0; i < 2; ++i) {
    const Watch watch("Permit");
    auto permit = Within("Semaphore::Acquire",
                         [&] { return semaphore->Acquire(stage.Short()); });
    auto second = Within("Semaphore::Acquire",
                         [&] { return semaphore->Acquire(stage.Short()); });
    stage.Now();
    stage.BeforeUntimed(kLock);
    if (second.ok()) {
      (void)second->previous_owner_died();
      Within("Permit::Consume", [&] { second->Consume().IgnoreError(); });
    }
  }
  stage.BeforeUntimed(kLock);
  for (const uint64_t count :
       {uint64_t{1}, uint64_t{0}, ~uint64_t{0}, uint64_t{1} << 63}) {
    Within("Semaphore::Release",
           [&] { semaphore->Release(count).IgnoreError(); });
  }
  Within("Semaphore::Available", [&] { semaphore->Available().IgnoreError(); });
}

void UseConditionVariable(Stage& stage) {
  auto changed = Within("ConditionVariable::Attach", [&] {
    return ConditionVariable::Attach(stage.segment(), 0);
  });
  constexpr size_t kMutex = ConditionVariable::SizeBytes();
  auto mutex = Within("Mutex::Attach",
                      [&] { return Mutex::Attach(stage.segment(), kMutex); });
  auto recursive = Within("RecursiveMutex::Attach", [&] {
    return RecursiveMutex::Attach(stage.segment(), kMutex + Mutex::SizeBytes());
  });
  if (!changed.ok() || !mutex.ok() || !recursive.ok()) return;
  stage.Now();
  Within("ConditionVariable::Notify",
         [&] { changed->Notify(2).IgnoreError(); });
  {
    const Watch watch("Mutex::Guard");
    auto guard =
        Within("Mutex::Lock", [&] { return mutex->Lock(stage.Short()); });
    stage.Now();
    Within("ConditionVariable::Wait",
           [&] { changed->Wait(*mutex, stage.Short()).IgnoreError(); });
    int calls = 0;
    Within("ConditionVariable::Wait, predicate", [&] {
      const auto predicate = [&] {
        if (++calls == 1) stage.Now();
        return false;
      };
      changed->Wait(*mutex, predicate, stage.Short()).IgnoreError();
    });
  }
  {
    const Watch watch("RecursiveMutex::Guard");
    auto guard = Within("RecursiveMutex::Lock",
                        [&] { return recursive->Lock(stage.Short()); });
    stage.Now();
    Within("ConditionVariable::Wait, recursive",
           [&] { changed->Wait(*recursive, stage.Short()).IgnoreError(); });
  }
  Within("ConditionVariable::NotifyAll",
         [&] { changed->NotifyAll().IgnoreError(); });
}
constexpr size_t kConditionVariableBytes = ConditionVariable::SizeBytes() +
                                           Mutex::SizeBytes() +
                                           RecursiveMutex::SizeBytes();

void UseEvent(Stage& stage) {
  auto event = Within("Event::Attach",
                      [&] { return Event::Attach(stage.segment(), 0); });
  if (!event.ok()) return;
  stage.Now();
  for (int i = 0; i < 2; ++i) {
    Within("Event::Clear", [&] { event->Clear().IgnoreError(); });
    stage.Now();
    Within("Event::Wait", [&] { event->Wait(stage.Short()).IgnoreError(); });
    Within("Event::Set", [&] { event->Set().IgnoreError(); });
    stage.Now();
    Within("Event::Wait", [&] { event->Wait(stage.Short()).IgnoreError(); });
    (void)event->IsSet();
  }
}

template <uint32_t kParties>
void UseBarrier(Stage& stage) {
  constexpr size_t kLock = offsetof(internal::BarrierHeader, monitor);
  auto barrier = Within("Barrier::Attach", [&] {
    return Barrier::Attach(stage.segment(), 0, kParties);
  });
  if (!barrier.ok()) return;
  stage.Now();
  for (int i = 0; i < 2; ++i) {
    Within("Barrier::Wait", [&] {
      const auto place = barrier->Wait(stage.Short(), [&] { stage.Now(); });
      if (place.ok() && *place >= kParties) Fail("no such place");
    });
    stage.Now();
    stage.BeforeUntimed(kLock);
    Within("Barrier::ApproximateWaiting",
           [&] { barrier->ApproximateWaiting().IgnoreError(); });
    Within("Barrier::IsBroken", [&] { barrier->IsBroken().IgnoreError(); });
    if (stage.random()() % 4 == 0) {
      Within("Barrier::Abort", [&] { barrier->Abort().IgnoreError(); });
    }
    Within("Barrier::Reset", [&] { barrier->Reset().IgnoreError(); });
  }
}

struct Object {
  const char* name;
  size_t bytes;
  void (*use)(Stage& stage);
  // How many words from its start are not of long tables, whose entries are
  // alike.
  size_t in_full = 20;

  // What a failure of its tests says.
  friend void PrintTo(const Object& object, std::ostream* out) {
    *out << object.name;
  }
};

using Middle = std::array<uint64_t, 9>;
using Large = std::array<uint64_t, 500>;

const Object kObjects[] = {
    {"SmallValue", Value<int64_t>::SizeBytes(), &UseValue<int64_t>},
    {"BoolValue", Value<bool>::SizeBytes(), &UseValue<bool>},
    {"Value", Value<Middle>::SizeBytes(), &UseValue<Middle>},
    {"LargeValue", Value<Large>::SizeBytes(), &UseValue<Large>},
    {"Array", Array<uint32_t>::SizeBytes(16), &UseArray<uint32_t>},
    {"BoolArray", Array<bool>::SizeBytes(16), &UseArray<bool>},
    {"UndoableArray", Array<uint32_t>::SizeBytes(16, {.undo = 4}),
     &UseUndoableArray},
    {"Arena", Arena::SizeBytes(kArenaBytes, kArenaUndo), &UseArena, 150},
    {"Mutex", Mutex::SizeBytes(), &UseLock<Mutex>},
    {"RecursiveMutex", RecursiveMutex::SizeBytes(), &UseLock<RecursiveMutex>},
    {"SharedMutex", SharedMutex::SizeBytes(), &UseLock<SharedMutex>},
    {"Semaphore", Semaphore::SizeBytes(), &UseSemaphore<Semaphore>},
    {"BoundedSemaphore", BoundedSemaphore::SizeBytes(),
     &UseSemaphore<BoundedSemaphore>},
    {"ConditionVariable", kConditionVariableBytes, &UseConditionVariable},
    {"Event", Event::SizeBytes(), &UseEvent},
    {"BarrierOfOne", Barrier::SizeBytes(1), &UseBarrier<1>},
    {"BarrierOfThree", Barrier::SizeBytes(3), &UseBarrier<3>},
};

// That this process still can use what nobody has touched.
void UseFreshSegment() {
  auto value =
      Within("fresh Value", [] { return Value<Middle>::CreateAnonymous({7}); });
  if (!value.ok() || value->Load()->at(0) != 7) Fail("no new Value");
  auto mutex = Within("fresh Mutex", [] { return Mutex::CreateAnonymous(); });
  if (!mutex.ok()) return Fail("no new Mutex");
  if (!Within("fresh Lock",
              [&] { return mutex->Lock(absl::ZeroDuration()).ok(); })) {
    Fail("a new Mutex cannot be locked");
  }
}

// What a word is made.
struct Rubbish {
  enum Kind { kSet, kFlip } kind;
  uint64_t bits;

  void Strike(std::atomic<uint64_t>& word) const {
    if (kind == kSet) {
      word.store(bits);
    } else {
      word.fetch_xor(bits);
    }
  }
};

std::vector<Rubbish> MakeRubbish(const Ground& ground, std::mt19937& random) {
  const uint64_t anything = uint64_t{random()} << 32 | random();
  const Participant self = *ground.segment().Self();
  const Participant other = *ground.other().Self();
  std::vector<Rubbish> rubbish;
  for (const uint64_t bits :
       {uint64_t{0}, ~uint64_t{0}, uint64_t{1}, uint64_t{1} << 63,
        ~uint64_t{0} >> 1, uint64_t{0xffffffff}, uint64_t{0xffffffff} << 32,
        uint64_t{2}, uint64_t{3}, uint64_t{4}, anything}) {
    rubbish.push_back({Rubbish::kSet, bits});
  }
  for (const Participant owner :
       {self, other, Participant{self.index, self.epoch + 1},
        Participant{77, 3}}) {
    const uint64_t lock = RobustLock::Pack(owner);
    const uint64_t epoch = uint64_t{owner.epoch} << 32;
    for (const uint64_t bits :
         {lock, lock | RobustLock::kWaiters | RobustLock::kWanted,
          lock | RobustLock::kDirty,
          // Entries of a ConditionVariable, by their state.
          epoch | (owner.index + 1) << 2 | 1,
          epoch | (owner.index + 1) << 2 | 2,
          epoch | (owner.index + 1) << 2 | 3,
          // Counts of a semaphore or a SharedMutex.
          epoch | 1, epoch | 0x7fffffff, epoch | 0xffffffff}) {
      rubbish.push_back({Rubbish::kSet, bits});
    }
  }
  for (int byte = 0; byte < 8; ++byte) {
    rubbish.push_back({Rubbish::kFlip, uint64_t{0xff} << 8 * byte});
    rubbish.push_back(
        {Rubbish::kFlip, uint64_t{1} << (8 * byte + random() % 8)});
  }
  return rubbish;
}

class HostileObjectTest : public ::testing::TestWithParam<Object> {};

// Each word of the object and some of the participants, at each moment.
TEST_P(HostileObjectTest, EachWord) {
  const Object& object = GetParam();
  Child child = RunAs(0, [&](Child::Side) {
    std::mt19937 random(1);
    int moments;
    const auto strike = [&](Ground& ground, size_t offset, int moment,
                            const Rubbish& rubbish) {
      const int before = failures;
      Stage stage(ground.segment(), random());
      stage.FreeLocks();
      stage.StrikeAt(moment, [&] { rubbish.Strike(ground.Word(offset)); });
      object.use(stage);
      Stage again(ground.segment(), random());  // attaches to what is left
      again.FreeLocks();
      object.use(again);
      if (failures != before) {
        fprintf(stderr, "offset %zu, moment %d, %s %llx\n", offset, moment,
                rubbish.kind == Rubbish::kSet ? "set to" : "flipped by",
                static_cast<unsigned long long>(rubbish.bits));
      }
    };
    Ground ground(object.bytes);
    {
      Stage stage(ground.segment(), 1);
      object.use(stage);
      moments = stage.moments();
      ground.Save();
    }
    // Everything at each moment; of long tables two values at one moment each.
    for (size_t i = 0; i < (ground.size() - kUserArea) / 8; ++i) {
      const size_t offset = kUserArea + i * 8;
      const std::vector<Rubbish> rubbish = MakeRubbish(ground, random);
      if (i < object.in_full) {
        for (const Rubbish& it : rubbish) {
          for (int moment = 0; moment < moments; ++moment) {
            strike(ground, offset, moment, it);
            ground.Restore(kUserArea);
          }
        }
      } else {
        for (int n = 0; n < 2; ++n) {
          strike(ground, offset, random() % moments,
                 rubbish[random() % rubbish.size()]);
          ground.Restore(kUserArea);
        }
      }
    }
    // What is lost here is attached to anew, so each time another segment.
    for (const size_t i : {0, 1, 2, 77, 255}) {
      for (const Rubbish& rubbish : MakeRubbish(ground, random)) {
        Ground fresh(object.bytes);
        strike(fresh, sizeof(SegmentHeader) + i * 8, random() % moments,
               rubbish);
      }
    }
    UseFreshSegment();
  });
  ExpectLives(child, 0);
}

// Two processes use it while a third one writes rubbish.
TEST_P(HostileObjectTest, Concurrently) {
  const Object& object = GetParam();
  const unsigned seed = std::random_device()();
  printf("seed %u\n", seed);
  std::mt19937 random(seed);
  Ground ground(object.bytes);
  {
    Stage stage(ground.segment(), 1);
    object.use(stage);
  }
  const absl::Time end = absl::Now() + absl::Milliseconds(400);
  std::vector<Child> children;
  for (int index = 0; index < 2; ++index) {
    children.push_back(RunAs(index, [&](Child::Side side) {
      std::mt19937 random(seed + index);
      Segment segment = ground.segment();
      segment.Self().IgnoreError();
      side.Tell();
      int uses = 0;
      while (uses == 0 || absl::Now() < end) {
        // One of them attaches anew each time.
        if (index == 1) {
          absl::StatusOr<Segment> attached = Within("Segment::FromFd", [&] {
            return Segment::FromFd(ground.Duplicate());
          });
          if (attached.ok()) segment = *std::move(attached);
        }
        Stage stage(segment, random());
        object.use(stage);
        if (stage.moments() > 0) ++uses;
      }
      UseFreshSegment();
    }));
    ASSERT_TRUE(children.back().Hear());
  }
  ground.Save();
  while (absl::Now() < end) {
    const std::vector<Rubbish> rubbish = MakeRubbish(ground, random);
    for (int i = 0; i < 50; ++i) {
      // Mostly the object, and mostly its head.
      const size_t begin = random() % 16 == 0 ? 0 : kUserArea + 8;
      const size_t size = random() % 2 == 0
                              ? std::min(size_t{128}, ground.size() - begin)
                              : ground.size() - begin;
      const size_t offset = begin + random() % size;
      if (random() % 2 == 0) {
        ground.Byte(offset).store(static_cast<uint8_t>(random()));
      } else {
        rubbish[random() % rubbish.size()].Strike(ground.Word(offset / 8 * 8));
      }
      if (random() % 4 == 0) absl::SleepFor(absl::Microseconds(random() % 100));
    }
    ground.Restore();
  }
  // Whoever waits without a time-out for one that is said to hold a lock.
  ground.Wipe();
  for (int index = 0; index < 2; ++index) ExpectLives(children[index], index);
}

INSTANTIATE_TEST_SUITE_P(All, HostileObjectTest, ::testing::ValuesIn(kObjects),
                         [](const auto& info) { return info.param.name; });

// A peer that changes a word all the time, so that what was seen is never what
// is there. Time-outs hold nevertheless.
void ExpectTimely(size_t bytes,
                  const std::function<void(Ground& ground, uint64_t n)>& strike,
                  const std::function<void(const Segment& segment)>& call) {
  Ground ground(bytes);
  Child peer = Child::Fork([&](Child::Side side) {
    for (uint64_t n = 0;; ++n) {
      strike(ground, n);
      if (n == 1000) side.Tell();
    }
    return 0;
  });
  ASSERT_TRUE(peer.Hear());
  Child child = RunAs(0, [&](Child::Side) {
    for (int i = 0; i < 20; ++i) call(ground.segment());
    UseFreshSegment();
  });
  ExpectLives(child, 0);
}

constexpr absl::Duration kFew = absl::Milliseconds(5);

// A participant that died just now, each time another one. The kernel has to be
// asked about it, which takes long enough for the word to change meanwhile.
Participant JustDied(Ground& ground, uint64_t n) {
  const Participant dead = {77, static_cast<uint32_t>(n)};
  ground.Word(sizeof(SegmentHeader) + dead.index * 8)
      .store(uint64_t{dead.epoch} << 32 | 1);
  return dead;
}

TEST(HostileHammerTest, Lock) {
  constexpr size_t kLock = kUserArea + offsetof(internal::MutexHeader, lock);
  const auto use = [](const Segment& segment) {
    Mutex mutex = *Mutex::Attach(segment, 0);
    for (const absl::Duration timeout : {absl::ZeroDuration(), kFew}) {
      Within("Mutex::AcquireFor",
             [&] { mutex.AcquireFor(timeout).IgnoreError(); });
      Within("Mutex::Unlock", [&] { mutex.Unlock().IgnoreError(); });
    }
  };
  ExpectTimely(
      Mutex::SizeBytes(),
      [](Ground& ground, uint64_t n) {
        ground.Word(kLock).store(RobustLock::Pack(JustDied(ground, n)));
      },
      use);
  // Free, but never the same.
  ExpectTimely(
      Mutex::SizeBytes(),
      [](Ground& ground, uint64_t n) {
        ground.Word(kLock).store(n % 2 == 0 ? RobustLock::kWaiters
                                            : RobustLock::kDirty);
      },
      use);
}

TEST(HostileHammerTest, SharedMutex) {
  const auto use = [](const Segment& segment) {
    SharedMutex mutex = *SharedMutex::Attach(segment, 0);
    for (const absl::Duration timeout : {absl::ZeroDuration(), kFew}) {
      Within("SharedMutex::AcquireFor",
             [&] { mutex.AcquireFor(timeout).IgnoreError(); });
      Within("SharedMutex::Unlock", [&] { mutex.Unlock().IgnoreError(); });
      Within("SharedMutex::AcquireSharedFor",
             [&] { mutex.AcquireSharedFor(timeout).IgnoreError(); });
      Within("SharedMutex::UnlockShared",
             [&] { mutex.UnlockShared().IgnoreError(); });
    }
  };
  ExpectTimely(
      SharedMutex::SizeBytes(),
      [](Ground& ground, uint64_t n) {
        ground.Word(kUserArea + offsetof(internal::SharedMutexHeader, writer))
            .store(n % 8 == 7 ? 0 : RobustLock::Pack(JustDied(ground, n)));
      },
      use);
  // A dead reader, again and again.
  ExpectTimely(
      SharedMutex::SizeBytes(),
      [](Ground& ground, uint64_t n) {
        constexpr size_t kEnd =
            kUserArea + offsetof(internal::SharedMutexHeader, reader_end);
        constexpr size_t kReaders =
            kUserArea + offsetof(internal::SharedMutexHeader, readers);
        if (n == 0) ground.Word(kEnd).store(Segment::kMaxParticipants);
        ground.Word(kReaders + 77 * 64)
            .store(uint64_t{JustDied(ground, n).epoch} << 32 | 1);
      },
      use);
}

constexpr size_t kWaiters =
    kUserArea + offsetof(internal::ConditionVariableHeader, waiters);
constexpr size_t kWaiterEnd =
    kUserArea + offsetof(internal::ConditionVariableHeader, waiter_end);

// Who is in a given state, but never was.
uint64_t DeadWaiter(uint64_t n, uint64_t state) {
  return n << 32 | 78 << 2 | state;
}

TEST(HostileHammerTest, Notify) {
  ExpectTimely(
      kConditionVariableBytes,
      [](Ground& ground, uint64_t n) {
        if (n == 0)
          ground.Word(kWaiterEnd).store(ConditionVariable::kMaxWaiters);
        ground.Word(kWaiters).store(DeadWaiter(n, 2));
      },
      [](const Segment& segment) {
        ConditionVariable changed = *ConditionVariable::Attach(segment, 0);
        Within("ConditionVariable::Notify",
               [&] { changed.Notify(3).IgnoreError(); });
      });
}

TEST(HostileHammerTest, NoPlaceToWait) {
  ExpectTimely(
      kConditionVariableBytes,
      [](Ground& ground, uint64_t n) {
        ground.Word(kWaiterEnd).store(ConditionVariable::kMaxWaiters);
        for (uint32_t i = 0; i < ConditionVariable::kMaxWaiters; ++i) {
          ground.Word(kWaiters + i * sizeof(internal::Waiter))
              .store(DeadWaiter(n, 1));
        }
      },
      [](const Segment& segment) {
        ConditionVariable changed = *ConditionVariable::Attach(segment, 0);
        Mutex mutex = *Mutex::Attach(segment, ConditionVariable::SizeBytes());
        Within("ConditionVariable::Wait", [&] {
          mutex.AcquireFor(kFew).IgnoreError();
          changed.Wait(mutex, kFew).IgnoreError();
          mutex.Unlock().IgnoreError();
        });
      });
}

// Notified at once, each time, without a reason.
TEST(HostileHammerTest, Predicate) {
  ExpectTimely(
      kConditionVariableBytes,
      [](Ground& ground, uint64_t n) {
        ground.Word(kWaiters).store(n % 2 == 0 ? 0 : ~uint64_t{0});
      },
      [](const Segment& segment) {
        ConditionVariable changed = *ConditionVariable::Attach(segment, 0);
        Mutex mutex = *Mutex::Attach(segment, ConditionVariable::SizeBytes());
        Within("ConditionVariable::Wait", [&] {
          mutex.AcquireFor(kFew).IgnoreError();
          changed
              .Wait(
                  mutex, [] { return false; }, kFew)
              .IgnoreError();
          mutex.Unlock().IgnoreError();
        });
      });
}

// Whenever it is looked at, it has just changed.
TEST(HostileHammerTest, SmallValue) {
  Ground ground(Value<int64_t>::SizeBytes());
  Child child = RunAs(0, [&](Child::Side) {
    auto value = *Value<int64_t>::Attach(ground.segment(), 0);
    for (const absl::Duration timeout : {absl::ZeroDuration(), kFew}) {
      const auto overtaken = [&](int64_t old) {
        ground.Word(kUserArea + 8).fetch_add(1);
        return old;
      };
      const absl::Status status = Within("Value::Update", [&] {
        return value.Update(overtaken, timeout).status();
      });
      if (!absl::IsDeadlineExceeded(status)) Fail("no DeadlineExceeded");
      Within("Value::WaitForChange", [&] {
        value.WaitForChange(value.version(), timeout).IgnoreError();
      });
    }
  });
  ExpectLives(child, 0);
}

// Lapped each time.
TEST(HostileHammerTest, LargeValue) {
  ExpectTimely(
      Value<Large>::SizeBytes(),
      [](Ground& ground, uint64_t n) {
        ground.Word(kUserArea + 8).store(n * 5);
      },
      [](const Segment& segment) {
        auto value = *Value<Large>::Attach(segment, 0);
        Within("Value::Load", [&] { value.Load().IgnoreError(); });
      });
}

TEST(HostileHammerTest, Barrier) {
  ExpectTimely(
      Barrier::SizeBytes(3),
      [](Ground& ground, uint64_t n) {
        // One round after the other, at which nobody else is.
        ground.Word(kUserArea + offsetof(internal::BarrierHeader, state))
            .store(n % 5);
        ground.Word(kUserArea + 64 + n % 3 * 8).store(n % 2);
      },
      [](const Segment& segment) {
        Barrier barrier = *Barrier::Attach(segment, 0, 3);
        Within("Barrier::Wait", [&] { barrier.Wait(kFew).IgnoreError(); });
        Within("Barrier::Reset", [&] { barrier.Reset().IgnoreError(); });
      });
}

// One that lives is said to hold the lock. Whoever gave a time-out gives up.
TEST(HostileTest, LockOfTheLiving) {
  Ground ground(SharedMutex::SizeBytes());
  for (const Segment& holder : {ground.segment(), ground.other()}) {
    const uint64_t kept = RobustLock::Pack(*holder.Self());
    const auto expect_late = [&](size_t offset, auto attach, auto call) {
      for (size_t i = kUserArea; i < ground.size(); i += 8) {
        ground.Word(i).store(0);
      }
      auto object = attach(ground.segment());
      ASSERT_THAT(object, IsOk());
      ground.Word(kUserArea + offset).store(kept);
      for (const absl::Duration timeout : {absl::ZeroDuration(), kFew}) {
        EXPECT_TRUE(absl::IsDeadlineExceeded(
            Within("locked", [&] { return call(*object, timeout); })));
      }
      ground.Word(kUserArea + offset).store(0);
      EXPECT_THAT(call(*object, kFew), IsOk());
    };
    expect_late(
        offsetof(internal::ValueHeader, lock),
        [](const Segment& s) { return Value<Middle>::Attach(s, 0); },
        [](auto& value, absl::Duration timeout) {
          return value.Store({}, timeout);
        });
    expect_late(
        offsetof(internal::ArrayHeader, lock),
        [](const Segment& s) { return Array<int>::Attach(s, 0, 9); },
        [](auto& array, absl::Duration timeout) {
          return array.Set(0, 1, timeout);
        });
    expect_late(
        offsetof(internal::MutexHeader, lock),
        [](const Segment& s) { return Mutex::Attach(s, 0); },
        [](auto& mutex, absl::Duration timeout) {
          return mutex.Lock(timeout).status();
        });
    expect_late(
        offsetof(internal::RecursiveMutexHeader, lock),
        [](const Segment& s) { return RecursiveMutex::Attach(s, 0); },
        [](auto& mutex, absl::Duration timeout) {
          return mutex.Lock(timeout).status();
        });
    expect_late(
        offsetof(internal::SharedMutexHeader, writer),
        [](const Segment& s) { return SharedMutex::Attach(s, 0); },
        [](auto& mutex, absl::Duration timeout) {
          const absl::Status shared = mutex.LockShared(timeout).status();
          const absl::Status status = mutex.Lock(timeout).status();
          EXPECT_EQ(shared.code(), status.code());
          return status;
        });
    expect_late(
        offsetof(internal::SemaphoreHeader, monitor),
        [](const Segment& s) { return Semaphore::Attach(s, 0, 2); },
        [](auto& semaphore, absl::Duration timeout) {
          return semaphore.Acquire(timeout).status();
        });
    expect_late(
        offsetof(internal::BarrierHeader, monitor),
        [](const Segment& s) { return Barrier::Attach(s, 0, 1); },
        [](auto& barrier, absl::Duration timeout) {
          return barrier.Wait(timeout).status();
        });
  }
}

// Units that were consumed, so many that one more has no number.
TEST(HostileTest, SemaphoreThatWasConsumedToTheLast) {
  Ground ground(Semaphore::SizeBytes());
  Semaphore semaphore = *Semaphore::Attach(ground.segment(), 0, 1);
  absl::StatusOr<Permit> permit = semaphore.Acquire(absl::ZeroDuration());
  ASSERT_THAT(permit, IsOk());
  ground.Word(kUserArea + offsetof(internal::SemaphoreHeader, added))
      .store(uint64_t{1} << 63);
  permit->Consume().IgnoreError();
  EXPECT_THAT(semaphore.Available(), IsOk());
}

// A bool of a peer is true or false, whatever its byte is.
TEST(HostileTest, Bool) {
  Ground ground(Array<bool>::SizeBytes(8));
  auto array = *Array<bool>::Attach(ground.segment(), 0, 8);
  ground.Word(kUserArea + 64).store(0x0080ff0302010000);
  const bool expected[] = {false, false, true, true, true, true, true, false};
  bool copy[8];
  ASSERT_THAT(array.SnapshotInto(absl::MakeSpan(copy)), IsOk());
  for (int i = 0; i < 8; ++i) {
    EXPECT_THAT(array.Get(i), IsOkAndHolds(expected[i]));
    const char byte = expected[i] ? 1 : 0;
    EXPECT_EQ(std::memcmp(&copy[i], &byte, 1), 0);
  }
}

// Uses all that an opened segment gives.
void Explore(const Segment& segment, size_t size) {
  const absl::Span<std::byte> bytes = segment.bytes();
  ASSERT_LE(bytes.size(), size);
  unsigned sum = 0;
  for (const std::byte byte : bytes) sum += std::to_integer<unsigned>(byte);
  static std::atomic<unsigned> result;
  result.store(sum);  // or nothing would be read
  if (!segment.writable()) return;
  const absl::StatusOr<Participant> self = segment.Self();
  if (self.ok()) {
    EXPECT_LT(self->index, Segment::kMaxParticipants);
  }
  Stage stage(segment, 1);
  UseSemaphore<Semaphore>(stage);
}

constexpr size_t kSmall = Semaphore::SizeBytes();

// What a header's byte is made: each bit flipped, and some other values.
std::vector<uint8_t> BytesInsteadOf(uint8_t byte, std::mt19937& random) {
  std::vector<uint8_t> bytes = {0,    1,    0x7f,
                                0x80, 0xff, static_cast<uint8_t>(random())};
  for (int bit = 0; bit < 8; ++bit) bytes.push_back(byte ^ (1 << bit));
  return bytes;
}

TEST(HostileHeaderTest, EachByte) {
  std::mt19937 random(1);
  Ground ground(kSmall);
  ground.Save();
  for (size_t i = 0; i < sizeof(SegmentHeader); ++i) {
    for (const uint8_t byte : BytesInsteadOf(ground.Byte(i).load(), random)) {
      for (const Access access : {Access::kRead, Access::kReadWrite}) {
        ground.Byte(i).store(byte);
        const Watch watch("Segment::FromFd");
        const absl::StatusOr<Segment> segment =
            Segment::FromFd(ground.Duplicate(), access);
        if (segment.ok()) Explore(*segment, ground.file_size());
        ground.Restore();
      }
    }
  }
  EXPECT_EQ(failures, 0);
  EXPECT_THAT(Segment::FromFd(ground.Duplicate()), IsOk());
}

// Fields that are each of some use, though not together.
TEST(HostileHeaderTest, RandomFields) {
  std::mt19937 random(1);
  constexpr size_t kBytes = 20000;
  Ground ground(kBytes);
  ground.Save();
  const auto any = [&]() -> uint64_t {
    const uint64_t sizes[] = {ground.file_size(),
                              kUserArea,
                              kBytes,
                              Segment::kMaxParticipants,
                              64,
                              0,
                              uint64_t{1} << 29,
                              uint64_t{1} << 32,
                              uint64_t{1} << 63,
                              ~uint64_t{0}};
    const uint64_t size = sizes[random() % std::size(sizes)];
    switch (random() % 4) {
      case 0:
        return size + 64 * (random() % 64) - 64 * 32;
      case 1:
        return size + random() % 3 - 1;
      case 2:
        return random() % (2 * ground.size());
      default:
        return size;
    }
  };
  int opened = 0;
  for (int i = 0; i < 5000; ++i) {
    SegmentHeader header = ground.header();
    header.participant_capacity = static_cast<uint32_t>(any());
    header.header_size = static_cast<uint32_t>(
        random() % 4 == 0 ? any() : HeaderSize(header.participant_capacity));
    header.user_size = random() % 4 == 0 ? any() : random() % ground.size();
    if (random() % 8 == 0) header.total_size = any();
    ground.header() = header;
    // The participants are there, or are nonsense.
    for (size_t at = sizeof(header); at < ground.size(); at += 8) {
      ground.Word(at).store(i % 2 == 0 ? 0 : random());
    }
    const Watch watch("Segment::FromFd");
    const absl::StatusOr<Segment> segment = Segment::FromFd(
        ground.Duplicate(), i % 3 == 0 ? Access::kRead : Access::kReadWrite);
    if (segment.ok()) {
      ++opened;
      Explore(*segment, ground.file_size());
    }
    ground.Restore();
  }
  EXPECT_GT(opened, 0);
  EXPECT_EQ(failures, 0);
}

// Objects have room for kMaxParticipants, so there must not be more.
TEST(HostileHeaderTest, MoreParticipantsThanObjectsHaveRoomFor) {
  constexpr uint32_t kCapacity = 2000;
  Ground ground(HeaderSize(kCapacity) + kSmall - kUserArea);
  SegmentHeader header = ground.header();
  header.participant_capacity = kCapacity;
  header.header_size = HeaderSize(kCapacity);
  header.user_size = kSmall;
  ground.header() = header;
  // The lowest indices are taken by nobody, and for ever.
  for (uint32_t i = 0; i < kCapacity - 1; ++i) {
    ground.Word(sizeof(header) + i * 8).store(7);
  }
  const absl::StatusOr<Segment> segment = Segment::FromFd(ground.Duplicate());
  EXPECT_TRUE(absl::IsDataLoss(segment.status())) << segment.status();
  if (segment.ok()) Explore(*segment, ground.file_size());
}

bool WriteTo(const char* path, absl::string_view text) {
  const UniqueFd fd(open(path, O_WRONLY | O_CLOEXEC));
  return write(fd.get(), text.data(), text.size()) ==
         static_cast<ssize_t>(text.size());
}

// Gives this process a /dev/shm of its own.
bool MountDevShm() {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
         WriteTo("/proc/self/setgroups", "deny") &&
         WriteTo("/proc/self/uid_map", absl::StrCat(uid, " ", uid, " 1")) &&
         WriteTo("/proc/self/gid_map", absl::StrCat(gid, " ", gid, " 1")) &&
         mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount("own", "/dev/shm", "tmpfs", 0, "mode=1777") == 0;
}

// Where that cannot be, what other tests have left there is left to them.
bool has_own_dev_shm = false;

void ExpectFineInOwnDevShm(const std::function<void()>& body) {
  Child child = RunAs(0, [&](Child::Side) {
    has_own_dev_shm = MountDevShm();
    printf("a /dev/shm of its own: %s\n", has_own_dev_shm ? "yes" : "no");
    body();
    if (::testing::Test::HasFailure()) Fail("see above");
    fflush(stdout);
  });
  ExpectLives(child, 0);
}

// A file under a name, and what another process of this user does to it.
class NamedFile {
 public:
  NamedFile() { Create(); }

  const std::vector<uint8_t>& bytes() const { return bytes_; }
  void Write(size_t offset, const void* from, size_t size) const {
    EXPECT_EQ(pwrite(fd_.get(), from, size, offset),
              static_cast<ssize_t>(size));
  }
  void Truncate(size_t size) const { EXPECT_EQ(ftruncate(fd_.get(), size), 0); }
  // As it was at first, or anew if it was removed.
  void Restore() {
    if (!MemoryNames::Exists(name_)) return Create();
    Truncate(bytes_.size());
    Write(0, bytes_.data(), bytes_.size());
  }

  // What those do who find it.
  void Look() const {
    for (const Access access : {Access::kRead, Access::kReadWrite}) {
      const Watch watch("Segment::Open");
      const absl::StatusOr<Segment> segment = Segment::Open(name_, access);
      if (segment.ok()) Explore(*segment, bytes_.size());
    }
    EXPECT_THAT(Within("Segment::List", [] { return Segment::List(); }),
                IsOk());
    if (!has_own_dev_shm) return;
    EXPECT_THAT(
        Within("Segment::RemoveStale", [] { return Segment::RemoveStale(); }),
        IsOk());
  }
  absl::Status Open() const { return Segment::Open(name_).status(); }

 private:
  void Create() {
    name_ = names_.New();
    ASSERT_THAT(Segment::Create(name_, kSmall), IsOk());
    fd_ = UniqueFd(open(MemoryNames::Path(name_).c_str(), O_RDWR | O_CLOEXEC));
    bytes_.resize(kUserArea + kSmall);
    ASSERT_EQ(pread(fd_.get(), bytes_.data(), bytes_.size(), 0),
              static_cast<ssize_t>(bytes_.size()));
  }

  MemoryNames names_;
  std::string name_;
  UniqueFd fd_;
  std::vector<uint8_t> bytes_;
};

TEST(HostileHeaderTest, EachByteOfANamedOne) {
  ExpectFineInOwnDevShm([] {
    std::mt19937 random(1);
    NamedFile file;
    for (size_t i = 0; i < sizeof(SegmentHeader) + 8; ++i) {
      for (const uint8_t byte : BytesInsteadOf(file.bytes()[i], random)) {
        file.Write(i, &byte, 1);
        file.Look();
        file.Restore();
      }
    }
    EXPECT_THAT(file.Open(), IsOk());
  });
}

TEST(HostileHeaderTest, RandomNamedOnes) {
  ExpectFineInOwnDevShm([] {
    const unsigned seed = std::random_device()();
    printf("seed %u\n", seed);
    std::mt19937 random(seed);
    NamedFile file;
    for (int i = 0; i < 200; ++i) {
      // The kind is left in most, so that the rest is looked at.
      const size_t begin = random() % 4 == 0 ? 0 : sizeof(SegmentPrefix);
      std::vector<uint8_t> bytes(random() % (kUserArea - begin) + 1);
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
      file.Write(begin, bytes.data(), bytes.size());
      file.Look();
      file.Restore();
      // Participants only.
      bytes.resize(std::min(bytes.size(), kUserArea - sizeof(SegmentHeader)));
      file.Write(sizeof(SegmentHeader), bytes.data(), bytes.size());
      file.Look();
      file.Restore();
    }
    EXPECT_THAT(file.Open(), IsOk());
  });
}

TEST(HostileHeaderTest, Truncated) {
  ExpectFineInOwnDevShm([] {
    NamedFile file;
    std::vector<size_t> sizes = {kUserArea - 1, kUserArea, kUserArea + 1,
                                 file.bytes().size() - 1};
    for (size_t size = 0; size < 200; ++size) sizes.push_back(size);
    for (const size_t size : sizes) {
      file.Truncate(size);
      EXPECT_FALSE(file.Open().ok()) << size;
      file.Look();
      file.Restore();
    }
    // Grown is not what the header says, either.
    file.Truncate(file.bytes().size() + 4096);
    EXPECT_FALSE(file.Open().ok());
    file.Look();
    file.Restore();
    EXPECT_THAT(file.Open(), IsOk());
  });
}

}  // namespace
}  // namespace ipc::shm
