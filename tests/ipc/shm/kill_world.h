// What is killed in the kill tests of ipc/shm: one of each object, in a segment
// of their own, and what is asked after a death in any of them.
#ifndef TESTS_IPC_SHM_KILL_WORLD_H_
#define TESTS_IPC_SHM_KILL_WORLD_H_

#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/arena.h"
#include "ipc/shm/array.h"
#include "ipc/shm/barrier.h"
#include "ipc/shm/condition_variable.h"
#include "ipc/shm/event.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/recursive_mutex.h"
#include "ipc/shm/robust_lock.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/semaphore.h"
#include "ipc/shm/shared_mutex.h"
#include "ipc/shm/value.h"
#include "tests/testing/child.h"
#include "tests/testing/kill_operations.h"
#include "tests/testing/kill_points.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {

using testing::Child;
using testing::KillPoint;
using Observed = testing::Survival;

constexpr absl::Duration kTick = absl::Milliseconds(10);
// Long enough never to pass unless something hangs.
constexpr absl::Duration kPatience = absl::Seconds(20);

using Block = std::array<uint64_t, 9>;
constexpr size_t kElements = 4;
constexpr Array<uint64_t>::Options kUndo = {.undo = kElements};
constexpr size_t kArenaBytes = 2048;
constexpr size_t kUndoBytes = 2048;

inline Block Filled(uint64_t n) {
  Block block;
  block.fill(n);
  return block;
}

template <typename Words>
bool IsWhole(const Words& words) {
  return std::all_of(words.begin(), words.end(),
                     [&](uint64_t word) { return word == words[0]; });
}

// One of each, in a segment of their own, new for each kill.
class World : public testing::KillWorld {
 public:
  // What a waiter returns.
  static constexpr int kNotified = 0;
  static constexpr int kNotNotified = 1;
  static constexpr int kNotifiedAndInherited = 2;

  World() {
    small = *Value<int64_t>::Attach(segment, Take(Value<int64_t>::SizeBytes()));
    large = *Value<Block>::Attach(segment, Take(Value<Block>::SizeBytes()));
    array = *Array<uint64_t>::Attach(
        segment, Take(Array<uint64_t>::SizeBytes(kElements)), kElements);
    mutex_offset = Take(Mutex::SizeBytes());
    mutex = *Mutex::Attach(segment, mutex_offset);
    recursive =
        *RecursiveMutex::Attach(segment, Take(RecursiveMutex::SizeBytes()));
    shared = *SharedMutex::Attach(segment, Take(SharedMutex::SizeBytes()));
    semaphore = *Semaphore::Attach(segment, Take(Semaphore::SizeBytes()), 2);
    bounded =
        *BoundedSemaphore::Attach(segment, Take(Semaphore::SizeBytes()), 2);
    condition_header = At<internal::ConditionVariableHeader>(next_);
    condition = *ConditionVariable::Attach(
        segment, Take(ConditionVariable::SizeBytes()));
    barrier_header = At<internal::BarrierHeader>(next_);
    barrier = *Barrier::Attach(segment, Take(Barrier::SizeBytes(2)), 2);
    event = *Event::Attach(segment, Take(Event::SizeBytes()));
    undoable = *Array<uint64_t>::Attach(
        segment, Take(Array<uint64_t>::SizeBytes(kElements, kUndo)), kElements,
        kUndo);
    arena =
        *Arena::Attach(segment, Take(Arena::SizeBytes(kArenaBytes, kUndoBytes)),
                       kArenaBytes, kUndoBytes);
    guarded = At<uint64_t>(Take(64));
  }

  // What a lock guards: two words that are the same while nobody holds it.
  void ChangeGuarded() const {
    auto* const words = const_cast<volatile uint64_t*>(guarded);
    words[0] = words[0] + 1;
    words[1] = words[1] + 1;
  }
  bool IsGuardedWhole() const { return guarded[0] == guarded[1]; }
  void RepairGuarded() const { guarded[1] = guarded[0]; }

  // A third process that does `work` and is killed before it comes back.
  void LeaveADead(const std::function<void()>& work) {
    Child dead = Child::Fork([&](Child::Side side) {
      work();
      side.Tell();
      side.Hear();
      return 0;
    });
    ASSERT_TRUE(dead.Hear());
    dead.Kill();
  }
  // Another process that lives, and waits for the condition with the mutex.
  // What it returns says what it was told.
  template <typename M>
  Child Waiter(std::optional<M>& with) {
    Child waiter = Child::Fork([&](Child::Side side) {
      const std::lock_guard<M> lock(*with);
      side.Tell();
      if (!condition->Wait(*with, kPatience).ok()) return kNotNotified;
      return with->previous_owner_died() ? kNotifiedAndInherited : kNotified;
    });
    EXPECT_TRUE(waiter.Hear());
    // Once it has given the mutex back it is in the table, and then it falls
    // asleep. How it is woken depends on that.
    { const std::lock_guard<M> lock(*with); }
    waiter.AwaitSleep();
    return waiter;
  }
  void StartWaiter() { other.emplace(Waiter(mutex)); }
  // Another process that lives, waits at the barrier, and is stopped there. It
  // returns with the code of its status.
  void StartParty() {
    other.emplace(Child::Fork([&](Child::Side) {
      return static_cast<int>(barrier->Wait(kPatience).status().code());
    }));
    while (*barrier->ApproximateWaiting() < 1) std::this_thread::yield();
    while (true) {
      other->AwaitSleep();
      other->Stop();
      // Not while it has a look: it would keep everybody waiting.
      const uint64_t word = barrier_header->monitor.lock.word.load();
      if ((word & internal::RobustLock::kOwner) == 0) return;
      other->Continue();
    }
  }
  // Whoever waits for the mutex is to think that it is held on another CPU, and
  // to spin; though its holder has this one, too.
  void FeignAHolderElsewhere() const {
    auto* const header = At<internal::MutexHeader>(mutex_offset);
    header->lock.holder_cpu.store(CPU_SETSIZE + 1);
  }
  // What is at a place of the barrier; 0 is nobody.
  uint64_t BarrierPlace(int i) const {
    return reinterpret_cast<const std::atomic<uint64_t>*>(barrier_header +
                                                          1)[i];
  }

  void Attach() const { (void)segment.Self(); }  // else at its first call
  void Settle() {
    if (release != nullptr) std::exchange(release, nullptr)();
  }

  Segment segment = *Segment::CreateAnonymous(1 << 16);
  std::optional<Value<int64_t>> small;
  std::optional<Value<Block>> large;
  std::optional<Array<uint64_t>> array;
  std::optional<Mutex> mutex;
  std::optional<RecursiveMutex> recursive;
  std::optional<SharedMutex> shared;
  std::optional<Semaphore> semaphore;
  std::optional<BoundedSemaphore> bounded;
  std::optional<ConditionVariable> condition;
  std::optional<Barrier> barrier;
  std::optional<Event> event;
  std::optional<Array<uint64_t>> undoable;
  std::optional<Arena> arena;
  size_t mutex_offset;
  internal::ConditionVariableHeader* condition_header;
  internal::BarrierHeader* barrier_header;
  uint64_t* guarded;
  std::optional<Segment> named;
  std::optional<Child> other;
  std::optional<Child> another;
  // What the parent holds until Wake.
  std::function<void()> release;
  UniqueFd parents_end;
  UniqueFd victims_end;
  // A unit that somebody holds.
  std::optional<Permit> permit;

 private:
  size_t Take(size_t bytes) { return std::exchange(next_, next_ + bytes); }
  template <typename T>
  T* At(size_t offset) const {
    return reinterpret_cast<T*>(segment.bytes().data() + offset);
  }

  size_t next_ = 0;
};

using Operation = testing::KillOperation<World>;
// gcc 12 finds the initializers of its members in no other way.
static_assert(std::is_default_constructible_v<Operation>);

// The one after a death gets the lock, is told if it has to be, and no other
// one is. Returns whether it was told.
template <typename M>
bool InheritLock(World& world, M& mutex) {
  bool told = false;
  {
    auto guard = mutex.Lock(kPatience);
    EXPECT_THAT(guard, IsOk());
    if (!guard.ok()) return false;
    told = guard->previous_owner_died();
    EXPECT_TRUE(told || world.IsGuardedWhole()) << "nobody is told";
    world.RepairGuarded();
  }
  auto guard = mutex.Lock(kPatience);
  EXPECT_THAT(guard, IsOk());
  EXPECT_FALSE(guard.ok() && guard->previous_owner_died()) << "told twice";
  return told;
}

// The same, of a victim that takes it once.
template <typename M>
void CheckLock(World& world, M& mutex, const KillPoint& point,
               Observed& observed) {
  observed.Told(point, InheritLock(world, mutex));
}

template <typename M>
void HoldUntilWake(World& world, M& mutex) {
  mutex.lock();
  world.release = [&mutex] { mutex.unlock(); };
}
inline void Release(World& world) { std::exchange(world.release, nullptr)(); }

}  // namespace ipc::shm

#endif  // TESTS_IPC_SHM_KILL_WORLD_H_
