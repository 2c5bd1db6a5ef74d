// A process killed after every machine instruction of every operation of
// ipc/shm. Afterwards the survivors go on within two park ticks, nothing is
// torn, nothing is lost, and whoever has to be told of the death is.
//
//   bazel test -c opt //tests/ipc/shm:sync_kill_test
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
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
#include "ipc/shm/segment.h"
#include "ipc/shm/semaphore.h"
#include "ipc/shm/shared_mutex.h"
#include "ipc/shm/value.h"
#include "ipc/shm/vector.h"
#include "tests/testing/child.h"
#include "tests/testing/kill_operations.h"
#include "tests/testing/kill_points.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/unique_name.h"

namespace ipc::shm {
namespace {

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
using Map = HashMap<uint64_t, uint64_t>;
using Numbers = Vector<uint64_t>;

Block Filled(uint64_t n) {
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
  World() {
    small = *Value<int64_t>::Attach(segment, Take(Value<int64_t>::SizeBytes()));
    large = *Value<Block>::Attach(segment, Take(Value<Block>::SizeBytes()));
    array = *Array<uint64_t>::Attach(
        segment, Take(Array<uint64_t>::SizeBytes(kElements)), kElements);
    mutex = *Mutex::Attach(segment, Take(Mutex::SizeBytes()));
    recursive =
        *RecursiveMutex::Attach(segment, Take(RecursiveMutex::SizeBytes()));
    shared = *SharedMutex::Attach(segment, Take(SharedMutex::SizeBytes()));
    semaphore = *Semaphore::Attach(segment, Take(Semaphore::SizeBytes()), 2);
    condition = *ConditionVariable::Attach(
        segment, Take(ConditionVariable::SizeBytes()));
    barrier = *Barrier::Attach(segment, Take(Barrier::SizeBytes(2)), 2);
    event = *Event::Attach(segment, Take(Event::SizeBytes()));
    undoable = *Array<uint64_t>::Attach(
        segment, Take(Array<uint64_t>::SizeBytes(kElements, kUndo)), kElements,
        kUndo);
    arena =
        *Arena::Attach(segment, Take(Arena::SizeBytes(kArenaBytes, kUndoBytes)),
                       kArenaBytes, kUndoBytes);
    guarded = reinterpret_cast<uint64_t*>(segment.bytes().data() + Take(64));
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
  // A third process that lives, and waits for the condition with the mutex.
  void StartWaiter() {
    other.emplace(Child::Fork([&](Child::Side side) {
      const std::lock_guard<Mutex> lock(*mutex);
      side.Tell();
      return condition->Wait(*mutex, kPatience).ok() ? 0 : 1;
    }));
    ASSERT_TRUE(other->Hear());
    // Once it has given the mutex back it is in the table, and then it falls
    // asleep. How it is woken depends on that.
    { const std::lock_guard<Mutex> lock(*mutex); }
    other->AwaitSleep();
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
  std::optional<ConditionVariable> condition;
  std::optional<Barrier> barrier;
  std::optional<Event> event;
  std::optional<Array<uint64_t>> undoable;
  std::optional<Arena> arena;
  uint64_t* guarded;
  std::optional<Segment> named;
  std::optional<Child> other;
  // What the parent holds until Wake.
  std::function<void()> release;
  // A unit that somebody holds.
  std::optional<Permit> permit;

 private:
  size_t Take(size_t bytes) { return std::exchange(next_, next_ + bytes); }

  size_t next_ = 0;
};

using Operation = testing::KillOperation<World>;
// gcc 12 finds the initializers of its members in no other way.
static_assert(std::is_default_constructible_v<Operation>);

// The one after a death gets the lock, is told if it has to be, and no other
// one is.
template <typename M>
void CheckLock(World& world, M& mutex, const KillPoint& point,
               Observed& observed) {
  {
    auto guard = mutex.Lock(kPatience);
    ASSERT_THAT(guard, IsOk());
    const bool told = guard->previous_owner_died();
    EXPECT_TRUE(told || world.IsGuardedWhole()) << "nobody is told";
    EXPECT_FALSE(told && point.completed) << "nobody died with the lock";
    observed.told += told ? 1 : 0;
    world.RepairGuarded();
  }
  auto guard = mutex.Lock(kPatience);
  ASSERT_THAT(guard, IsOk());
  EXPECT_FALSE(guard->previous_owner_died()) << "told twice";
}

template <typename M>
void HoldUntilWake(World& world, M& mutex) {
  mutex.lock();
  world.release = [&mutex] { mutex.unlock(); };
}
void Release(World& world) { std::exchange(world.release, nullptr)(); }

std::vector<Operation> Values() {
  const auto check_small = [](World& world, const KillPoint& point,
                              Observed& observed) {
    const int64_t now = *world.small->Load();
    EXPECT_THAT(now, ::testing::AnyOf(1, 2));
    observed.Effect(point, now == 2);
    ASSERT_THAT(world.small->Store(3), IsOk());
    EXPECT_THAT(world.small->Load(), IsOkAndHolds(3));
  };
  const auto check_large = [](World& world, const KillPoint& point,
                              Observed& observed) {
    const auto now = world.large->Load();
    ASSERT_THAT(now, IsOk());
    ASSERT_TRUE(IsWhole(*now)) << "torn";
    EXPECT_THAT((*now)[0], ::testing::AnyOf(1u, 2u));
    observed.Effect(point, (*now)[0] == 2);
    ASSERT_THAT(world.large->Store(Filled(3), kPatience), IsOk());
    EXPECT_THAT(world.large->Load(), IsOkAndHolds(Filled(3)));
  };
  const auto one = [](World& world) {
    ASSERT_THAT(world.small->Store(1), IsOk());
    ASSERT_THAT(world.large->Store(Filled(1)), IsOk());
  };
  const auto follow = [one](World& world) {
    one(world);
    world.other.emplace(Child::Fork([&](Child::Side side) {
      const uint64_t seen = world.small->version();
      side.Tell();
      return world.small->WaitForChange(seen, kPatience).ok() ? 0 : 1;
    }));
    ASSERT_TRUE(world.other->Hear());
  };
  return {
      {.name = "ValueStoreSmall",
       .arrange = one,
       .operate = [](World& world) { (void)world.small->Store(2); },
       .check = check_small},
      {.name = "ValueStoreSmallWithAFollower",
       .arrange = follow,
       .operate = [](World& world) { (void)world.small->Store(2); },
       .check =
           [check_small](World& world, const KillPoint& point,
                         Observed& observed) {
             check_small(world, point, observed);
             EXPECT_EQ(world.other->Wait(), 0);
           }},
      {.name = "ValueUpdateSmall",
       .arrange = one,
       .operate =
           [](World& world) {
             (void)world.small->Update([](int64_t n) { return n + 1; });
           },
       .check = check_small},
      {.name = "ValueStoreLarge",
       .arrange = one,
       .operate = [](World& world) { (void)world.large->Store(Filled(2)); },
       .check = check_large},
      {.name = "ValueUpdateLarge",
       .arrange = one,
       .operate =
           [](World& world) {
             (void)world.large->Update(
                 [](const Block& block) { return Filled(block[0] + 1); });
           },
       .check = check_large},
      {.name = "ValueWaitForChange",
       .arrange = one,
       .operate =
           [](World& world) {
             (void)world.small->WaitForChange(world.small->version());
           },
       .wake = [](World& world) { (void)world.small->Store(2); },
       .check =
           [](World& world, const KillPoint&, Observed&) {
             ASSERT_THAT(world.small->Store(3), IsOk());
             EXPECT_THAT(world.small->Load(), IsOkAndHolds(3));
           }},
      {.name = "ArrayLock",
       .operate =
           [](World& world) {
             auto guard = world.array->Lock();
             for (uint64_t& element : guard->span()) element = 2;
           },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             const auto snapshot = world.array->Snapshot();
             if (snapshot.ok()) {
               EXPECT_TRUE(IsWhole(*snapshot));
             } else {
               EXPECT_FALSE(point.completed) << snapshot.status();
             }
             {
               auto guard = world.array->Lock(kPatience);
               ASSERT_THAT(guard, IsOk());
               const bool told = guard->previous_owner_died();
               EXPECT_TRUE(told || IsWhole(guard->span()));
               EXPECT_FALSE(told && point.completed);
               observed.told += told ? 1 : 0;
               for (uint64_t& element : guard->span()) element = 3;
               guard->MarkConsistent();
             }
             EXPECT_FALSE(world.array->Lock()->previous_owner_died());
             EXPECT_THAT(world.array->Snapshot(), IsOk());
           }},
  };
}

template <typename M>
Operation LockOperation(const std::string& name, std::optional<M> World::*m) {
  return {.name = name,
          .operate =
              [m](World& world) {
                const std::lock_guard<M> lock(*(world.*m));
                world.ChangeGuarded();
              },
          .check =
              [m](World& world, const KillPoint& point, Observed& observed) {
                CheckLock(world, *(world.*m), point, observed);
              }};
}

// The heir of a dead holder, and one who sleeps until the lock is free.
template <typename M>
std::vector<Operation> LockOperations(const std::string& name,
                                      std::optional<M> World::*m) {
  const Operation lock = LockOperation<M>(name + "Lock", m);
  Operation inherit = lock;
  inherit.name = name + "Inherit";
  inherit.arrange = [m](World& world) {
    world.LeaveADead([&] { (world.*m)->lock(); });
  };
  Operation sleep = lock;
  sleep.name = name + "LockSleeping";
  sleep.arrange = [m](World& world) { HoldUntilWake(world, *(world.*m)); };
  sleep.wake = Release;
  return {lock, inherit, sleep};
}

std::vector<Operation> Mutexes() {
  std::vector<Operation> all;
  const auto add = [&](std::vector<Operation> more) {
    for (Operation& operation : more) all.push_back(std::move(operation));
  };
  add(LockOperations<Mutex>("Mutex", &World::mutex));
  add(LockOperations<RecursiveMutex>("RecursiveMutex", &World::recursive));
  add(LockOperations<SharedMutex>("SharedMutex", &World::shared));
  Operation twice =
      LockOperation<RecursiveMutex>("RecursiveMutexTwice", &World::recursive);
  twice.operate = [](World& world) {
    const std::lock_guard<RecursiveMutex> outer(*world.recursive);
    const std::lock_guard<RecursiveMutex> inner(*world.recursive);
    world.ChangeGuarded();
  };
  all.push_back(twice);

  Operation read =
      LockOperation<SharedMutex>("SharedMutexLockShared", &World::shared);
  read.operate = [](World& world) {
    const std::shared_lock<SharedMutex> lock(*world.shared);
  };
  all.push_back(read);
  Operation read_sleeping = read;
  read_sleeping.name = "SharedMutexLockSharedSleeping";
  read_sleeping.arrange = [](World& world) {
    HoldUntilWake(world, *world.shared);
  };
  read_sleeping.wake = Release;
  all.push_back(read_sleeping);
  Operation expel = read;
  expel.name = "SharedMutexLockSharedAfterADeadWriter";
  expel.arrange = [](World& world) {
    world.LeaveADead([&] { world.shared->lock(); });
  };
  expel.check = [](World& world, const KillPoint&, Observed&) {
    // To a reader it is told, and it stays told until a writer has been there.
    EXPECT_TRUE(world.shared->LockShared(kPatience)->previous_owner_died());
    EXPECT_TRUE(world.shared->Lock(kPatience)->previous_owner_died());
    EXPECT_FALSE(world.shared->Lock(kPatience)->previous_owner_died());
  };
  all.push_back(expel);
  Operation await_reader =
      LockOperation<SharedMutex>("SharedMutexAwaitReader", &World::shared);
  await_reader.arrange = [](World& world) {
    world.shared->lock_shared();
    world.release = [&world] { world.shared->unlock_shared(); };
  };
  await_reader.wake = Release;
  all.push_back(await_reader);
  Operation after_reader =
      LockOperation<SharedMutex>("SharedMutexAfterADeadReader", &World::shared);
  after_reader.arrange = [](World& world) {
    world.LeaveADead([&] { world.shared->lock_shared(); });
  };
  all.push_back(after_reader);
  return all;
}

// That exactly so many units are there.
void CheckUnits(World& world, size_t units) {
  std::vector<Permit> permits;
  for (size_t i = 0; i < units; ++i) {
    auto permit = world.semaphore->Acquire(kPatience);
    ASSERT_THAT(permit, IsOk());
    permits.push_back(*std::move(permit));
  }
  EXPECT_FALSE(world.semaphore->Acquire(absl::ZeroDuration()).ok());
  // Those who died are told of, each once.
  permits.clear();
  auto again = world.semaphore->Acquire(kPatience);
  ASSERT_THAT(again, IsOk());
  EXPECT_FALSE(again->previous_owner_died());
}

std::vector<Operation> Semaphores() {
  const auto check_all = [](World& world, const KillPoint&, Observed&) {
    CheckUnits(world, 2);
  };
  const auto all_taken = [](World& world) {
    auto first = std::make_shared<Permit>(*world.semaphore->Acquire());
    world.permit.emplace(*world.semaphore->Acquire());
    world.release = [first] { (void)first->Release(); };
  };
  return {
      {.name = "SemaphoreAcquireAndGiveBack",
       .operate = [](World& world) { (void)world.semaphore->Acquire(); },
       .check = check_all},
      {.name = "SemaphoreAcquireSleeping",
       .arrange = all_taken,
       .operate = [](World& world) { (void)world.semaphore->Acquire(); },
       // One unit only: to give back the other one needs the victim, which is
       // stopped somewhere by then.
       .wake = Release,
       .check =
           [](World& world, const KillPoint&, Observed&) {
             EXPECT_THAT(world.permit->Release(), IsOk());
             CheckUnits(world, 2);
           }},
      {.name = "SemaphoreInherit",
       .arrange =
           [](World& world) {
             world.LeaveADead([&] {
               // Held to the end, which is SIGKILL.
               static auto first = world.semaphore->Acquire();
               static auto second = world.semaphore->Acquire();
             });
           },
       .operate = [](World& world) { (void)world.semaphore->Acquire(); },
       // One unit may be told of twice, where the heir died telling.
       .check =
           [](World& world, const KillPoint&, Observed&) {
             std::vector<Permit> permits;
             for (int i = 0; i < 2; ++i) {
               auto permit = world.semaphore->Acquire(kPatience);
               ASSERT_THAT(permit, IsOk());
               permits.push_back(*std::move(permit));
             }
             EXPECT_FALSE(world.semaphore->Acquire(absl::ZeroDuration()).ok());
           }},
      {.name = "SemaphoreConsume",
       .prepare =
           [](World& world) {
             world.permit.emplace(*world.semaphore->Acquire());
           },
       .operate = [](World& world) { (void)world.permit->Consume(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             auto one = world.semaphore->Acquire(kPatience);
             ASSERT_THAT(one, IsOk());
             auto two = world.semaphore->Acquire(absl::ZeroDuration());
             observed.Effect(point, !two.ok());
           }},
      {.name = "SemaphoreRelease",
       .operate = [](World& world) { (void)world.semaphore->Release(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             const uint64_t units = *world.semaphore->Available();
             EXPECT_THAT(units, ::testing::AnyOf(2u, 3u));
             observed.Effect(point, units == 3);
             CheckUnits(world, units);
           }},
  };
}

// Two structures in the arena that say the same: a map from 0 to each number
// below n, and a vector of them.
struct Both {
  OffsetPtr<Map::Header> map;
  OffsetPtr<Numbers::Header> numbers;
};

absl::Status MakeBoth(Arena::Guard& guard) {
  const auto map = Map::Create(guard, 2);
  if (!map.ok()) return map.status();
  const auto numbers = Numbers::Create(guard);
  if (!numbers.ok()) return numbers.status();
  const auto both = guard.New(Both{map->pointer(), numbers->pointer()});
  if (!both.ok()) return both.status();
  return guard.SetRoot(*both);
}

// Puts n more in, or takes as many out.
absl::Status ChangeBoth(Arena::Guard& guard, int n) {
  const auto root = guard.root<Both>();
  if (!root.ok()) return root.status();
  const Both both = *guard.Get(*root);
  auto map = Map::At(guard, both.map);
  auto numbers = Numbers::At(guard, both.numbers);
  if (!map.ok()) return map.status();
  if (!numbers.ok()) return numbers.status();
  absl::Status status;
  for (; n > 0 && status.ok(); --n) {
    status = map->Set(numbers->size(), 7);
    if (status.ok()) status = numbers->PushBack(numbers->size());
  }
  for (; n < 0 && status.ok(); ++n) {
    status = map->Erase(numbers->size() - 1);
    if (status.ok()) status = numbers->PopBack();
  }
  return status;
}

// How many there are, after a look at all of it.
size_t CheckBoth(Arena::Guard& guard) {
  const auto root = guard.root<Both>();
  EXPECT_THAT(root, IsOk());
  const Both both = *guard.Get(*root);
  const auto map = Map::At(guard, both.map);
  const auto numbers = Numbers::At(guard, both.numbers);
  EXPECT_THAT(map, IsOk());
  EXPECT_THAT(numbers, IsOk());
  const size_t n = numbers->size();
  EXPECT_EQ(map->size(), n);
  for (uint64_t i = 0; i < n; ++i) {
    EXPECT_EQ(numbers->span()[i], i);
    EXPECT_THAT(map->Find(i), ::testing::Pointee(7u));
  }
  // Nothing else is in use: root, two headers, buckets, nodes, elements.
  EXPECT_EQ(guard.usage()->used_blocks, 4 + n + (n > 0 ? 1 : 0));
  return n;
}

std::vector<Operation> Transactions() {
  const auto protect_and_set = [](World& world, uint64_t n) {
    auto guard = world.undoable->Lock();
    for (size_t i = 0; i < kElements; ++i) (*guard->Protect(i, 1))[0] = n;
  };
  const auto one = [protect_and_set](World& world) {
    protect_and_set(world, 1);
  };
  const auto two = [protect_and_set](World& world) {
    protect_and_set(world, 2);
  };
  const auto check_array = [](World& world, const KillPoint& point,
                              Observed& observed) {
    {
      auto guard = world.undoable->Lock(kPatience);
      ASSERT_THAT(guard, IsOk());
      EXPECT_EQ(guard->rolled_back(), guard->previous_owner_died());
      observed.told += guard->rolled_back() ? 1 : 0;
      ASSERT_TRUE(IsWhole(guard->span()));
      EXPECT_THAT(guard->span()[0], ::testing::AnyOf(1u, 2u));
      observed.Effect(point, guard->span()[0] == 2);
    }
    EXPECT_FALSE(world.undoable->Lock()->previous_owner_died());
    EXPECT_THAT(world.undoable->Snapshot(), IsOk());
  };
  const auto three = [](World& world) {
    auto guard = world.arena->Lock();
    ASSERT_THAT(MakeBoth(*guard), IsOk());
    ASSERT_THAT(ChangeBoth(*guard, 3), IsOk());
  };
  const auto change = [](int n) {
    return [n](World& world) {
      auto guard = world.arena->Lock();
      (void)ChangeBoth(*guard, n);
    };
  };
  const auto check_arena = [](size_t after) {
    return [after](World& world, const KillPoint& point, Observed& observed) {
      size_t n = 0;
      {
        auto guard = world.arena->Lock(kPatience);
        ASSERT_THAT(guard, IsOk());
        observed.told += guard->previous_owner_died() ? 1 : 0;
        n = CheckBoth(*guard);
        EXPECT_THAT(n, ::testing::AnyOf(3u, after));
        if (after != 3) observed.Effect(point, n == after);
        ASSERT_THAT(ChangeBoth(*guard, 4), IsOk());
      }
      auto guard = world.arena->Lock();
      EXPECT_FALSE(guard->previous_owner_died());
      EXPECT_EQ(CheckBoth(*guard), n + 4);
    };
  };
  // Killed in the middle, the largest of the changes.
  const auto leave_a_dead = [](World& world) {
    world.LeaveADead([&] {
      static auto array_guard = world.undoable->Lock();
      for (size_t i = 0; i < kElements; ++i) {
        (*array_guard->Protect(i, 1))[0] = 3 + i;
      }
      static auto guard = world.arena->Lock();
      (void)ChangeBoth(*guard, -2);
      (void)ChangeBoth(*guard, 4);
    });
  };
  return {
      {.name = "ArrayProtect",
       .arrange = one,
       .operate = two,
       .check = check_array},
      {.name = "ArrayPutBack",
       .arrange =
           [=](World& world) {
             one(world);
             three(world);
             leave_a_dead(world);
           },
       .operate = two,
       .check = check_array},
      {.name = "ArenaGrow",
       .arrange = three,
       .operate = change(2),
       .check = check_arena(5)},
      {.name = "ArenaShrink",
       .arrange = three,
       .operate = change(-2),
       .check = check_arena(1)},
      {.name = "ArenaRollBack",
       .arrange = three,
       .operate =
           [](World& world) {
             auto guard = world.arena->Lock();
             (void)ChangeBoth(*guard, -2);
             guard->RollBack();
             (void)ChangeBoth(*guard, 1);
           },
       .check = check_arena(4)},
      {.name = "ArenaTakeBack",
       .arrange =
           [=](World& world) {
             three(world);
             leave_a_dead(world);
           },
       .operate = [](World& world) { (void)world.arena->Lock(); },
       .check = check_arena(3)},
  };
}

std::vector<Operation> Conditions() {
  const auto lock = [](World& world) { world.mutex->lock(); };
  const auto wait = [](World& world) {
    (void)world.condition->Wait(*world.mutex);
    world.mutex->unlock();
  };
  const auto notify = [](World& world) {
    const std::lock_guard<Mutex> guard(*world.mutex);
    (void)world.condition->Notify();
  };
  const auto check_nobody_waits = [](World& world, const KillPoint& point,
                                     Observed& observed) {
    CheckLock(world, *world.mutex, point, observed);
    const std::lock_guard<Mutex> guard(*world.mutex);
    EXPECT_THAT(world.condition->Notify(), IsOkAndHolds(0u))
        << "the dead do not count";
    EXPECT_EQ(world.condition->Wait(*world.mutex, absl::ZeroDuration()).code(),
              absl::StatusCode::kDeadlineExceeded);
  };
  // The one that lives is notified by the victim, or by us.
  const auto check_waiter = [](World& world, const KillPoint& point,
                               Observed& observed) {
    CheckLock(world, *world.mutex, point, observed);
    {
      const std::lock_guard<Mutex> guard(*world.mutex);
      const auto notified = world.condition->Notify();
      ASSERT_THAT(notified, IsOk());
      observed.Effect(point, *notified == 0);
    }
    EXPECT_EQ(world.other->Wait(), 0) << "not notified";
  };
  return {
      {.name = "ConditionWait",
       .prepare = lock,
       .operate = wait,
       .wake = notify,
       .check = check_nobody_waits},
      {.name = "ConditionWaitUntilDeadline",
       .prepare = lock,
       .operate =
           [](World& world) {
             (void)world.condition->Wait(*world.mutex, absl::ZeroDuration());
             world.mutex->unlock();
           },
       .check = check_nobody_waits},
      {.name = "ConditionNotify",
       .arrange = [](World& world) { world.StartWaiter(); },
       .operate = notify,
       .check = check_waiter},
      {.name = "ConditionNotifyPastADead",
       .arrange =
           [](World& world) {
             Child dead = Child::Fork([&](Child::Side side) {
               world.mutex->lock();
               side.Tell();
               return world.condition->Wait(*world.mutex).ok() ? 0 : 1;
             });
             ASSERT_TRUE(dead.Hear());
             { const std::lock_guard<Mutex> until_it_waits(*world.mutex); }
             world.StartWaiter();
             dead.Kill();
           },
       .operate = notify,
       .check = check_waiter},
  };
}

std::vector<Operation> Events() {
  const auto start_waiter = [](World& world) {
    world.other.emplace(Child::Fork([&](Child::Side side) {
      side.Tell();
      return world.event->Wait(kPatience).ok() ? 0 : 1;
    }));
    ASSERT_TRUE(world.other->Hear());
  };
  const auto check = [](World& world, const KillPoint&, Observed&) {
    EXPECT_THAT(world.event->Clear(), IsOk());
    EXPECT_FALSE(world.event->IsSet());
    EXPECT_THAT(world.event->Set(), IsOk());
    EXPECT_THAT(world.event->Wait(kPatience), IsOk());
  };
  return {
      {.name = "EventSet",
       .arrange = start_waiter,
       .operate = [](World& world) { (void)world.event->Set(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             observed.Effect(point, world.event->IsSet());
             EXPECT_THAT(world.event->Set(), IsOk());
             EXPECT_EQ(world.other->Wait(), 0);
           }},
      {.name = "EventClear",
       .arrange = [](World& world) { (void)world.event->Set(); },
       .operate = [](World& world) { (void)world.event->Clear(); },
       .check =
           [check](World& world, const KillPoint& point, Observed& observed) {
             observed.Effect(point, !world.event->IsSet());
             check(world, point, observed);
           }},
      {.name = "EventWait",
       .operate = [](World& world) { (void)world.event->Wait(); },
       .wake = [](World& world) { (void)world.event->Set(); },
       .check = check},
  };
}

// Two parties pass it as if nothing had happened.
void CheckBarrier(World& world) {
  ASSERT_THAT(world.barrier->Reset(), IsOk());
  std::thread thread(
      [&] { EXPECT_THAT(world.barrier->Wait(kPatience), IsOk()); });
  EXPECT_THAT(world.barrier->Wait(kPatience), IsOk());
  thread.join();
}

std::vector<Operation> Barriers() {
  return {
      {.name = "BarrierWaitFirst",
       .operate = [](World& world) { (void)world.barrier->Wait(); },
       .wake =
           [](World& world) {
             EXPECT_THAT(world.barrier->Wait(kPatience), IsOk());
           },
       .check = [](World& world, const KillPoint&,
                   Observed&) { CheckBarrier(world); }},
      {.name = "BarrierWaitLast",
       .arrange =
           [](World& world) {
             world.other.emplace(Child::Fork([&](Child::Side) {
               const absl::Status status =
                   world.barrier->Wait(kPatience).status();
               return static_cast<int>(status.code());
             }));
             while (*world.barrier->ApproximateWaiting() < 1) {
               std::this_thread::yield();
             }
           },
       .operate = [](World& world) { (void)world.barrier->Wait(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             // If the victim had come, the other one learns of its death.
             ASSERT_THAT(world.barrier->Abort(), IsOk());
             const int code = world.other->Wait();
             EXPECT_THAT(code,
                         ::testing::AnyOf(
                             0, static_cast<int>(absl::StatusCode::kAborted)));
             observed.Effect(point, code == 0);
             CheckBarrier(world);
           }},
      {.name = "BarrierAbort",
       .operate = [](World& world) { (void)world.barrier->Abort(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             observed.Effect(point, *world.barrier->IsBroken());
             CheckBarrier(world);
           }},
      {.name = "BarrierReset",
       .arrange = [](World& world) { (void)world.barrier->Abort(); },
       .operate = [](World& world) { (void)world.barrier->Reset(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             observed.Effect(point, !*world.barrier->IsBroken());
             CheckBarrier(world);
           }},
  };
}

std::vector<Operation> Segments() {
  const std::string name = testing::UniqueName("parley_sync_kill_test");
  const auto open = [](World& world) {
    return Segment::FromFd(
        UniqueFd(fcntl(world.segment.fd(), F_DUPFD_CLOEXEC, 0)));
  };
  return {
      {.name = "SegmentCreate",
       .operate = [](World&) { (void)Segment::CreateAnonymous(4096); },
       .check =
           [](World&, const KillPoint&, Observed&) {
             EXPECT_THAT(Segment::CreateAnonymous(4096), IsOk());
           }},
      {.name = "SegmentCreateNamed",
       .operate = [name](World&) { (void)Segment::Create(name, 4096); },
       .check =
           [name](World&, const KillPoint& point, Observed& observed) {
             // There is none, or it is complete.
             const auto segment = Segment::Open(name);
             observed.Effect(point, segment.ok());
             if (segment.ok()) {
               EXPECT_EQ(segment->bytes().size(), 4096u);
               EXPECT_THAT(Segment::Unlink(name), IsOk());
             } else {
               EXPECT_EQ(segment.status().code(), absl::StatusCode::kNotFound);
             }
           }},
      {.name = "SegmentOpenNamed",
       .arrange =
           [name](World& world) {
             world.named.emplace(*Segment::Create(name, 4096));
           },
       .operate = [name](World&) { (void)Segment::Open(name); },
       .check =
           [name](World& world, const KillPoint&, Observed&) {
             EXPECT_THAT(Segment::Open(name), IsOk());
             world.named.reset();
             // All who used it are dead, or have left.
             EXPECT_THAT(Segment::RemoveStale(), IsOk());
             (void)Segment::Unlink(name);
           }},
      {.name = "SegmentOpen",
       .operate = [open](World& world) { (void)open(world); },
       .check =
           [open](World& world, const KillPoint&, Observed&) {
             const auto again = open(world);
             ASSERT_THAT(again, IsOk());
             EXPECT_THAT(Mutex::Attach(*again, 0),
                         StatusIs(absl::StatusCode::kFailedPrecondition,
                                  ::testing::HasSubstr("has layout")));
             EXPECT_THAT(world.mutex->Lock(kPatience), IsOk());
           }},
  };
}

std::vector<Operation> Operations() {
  std::vector<Operation> all;
  for (auto more : {Values(), Mutexes(), Semaphores(), Conditions(), Events(),
                    Barriers(), Transactions(), Segments()}) {
    for (Operation& operation : more) all.push_back(std::move(operation));
  }
  return all;
}

class SyncKillTest : public ::testing::TestWithParam<Operation> {};

INSTANTIATE_TEST_SUITE_P(Operations, SyncKillTest,
                         ::testing::ValuesIn(Operations()),
                         [](const auto& info) { return info.param.name; });

TEST_P(SyncKillTest, Survived) { testing::CheckSurvival(GetParam(), kTick); }

}  // namespace
}  // namespace ipc::shm
