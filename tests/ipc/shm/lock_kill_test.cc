// A process killed after every machine instruction of taking and giving back a
// lock or a unit of a semaphore. Afterwards the survivors go on within two park
// ticks, and whoever has to be told of the death is.
//
//   bazel test -c opt //tests/ipc/shm:lock_kill_test
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/recursive_mutex.h"
#include "ipc/shm/semaphore.h"
#include "ipc/shm/shared_mutex.h"
#include "tests/ipc/shm/kill_world.h"
#include "tests/testing/kill_operations.h"
#include "tests/testing/kill_points.h"
#include "tests/testing/own_dev_shm.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

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
              },
          .tells = true};
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
  Operation spin = LockOperation<Mutex>("MutexLockSpinning", &World::mutex);
  spin.arrange = [](World& world) {
    HoldUntilWake(world, *world.mutex);
    world.FeignAHolderElsewhere();
  };
  spin.wake = Release;
  all.push_back(spin);
  // It finds out only once it has spun in vain that nobody will give it back.
  Operation spin_and_inherit =
      LockOperation<Mutex>("MutexInheritSpinning", &World::mutex);
  spin_and_inherit.arrange = [](World& world) {
    world.LeaveADead([&] { world.mutex->lock(); });
    world.FeignAHolderElsewhere();
  };
  all.push_back(spin_and_inherit);
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
  read.tells = false;  // it has changed nothing
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

// Takes all units, of which there have to be so many, and returns how often it
// was told of a death.
template <typename S>
int TakeUnits(S& semaphore, size_t units) {
  int told = 0;
  std::vector<Permit> permits;
  for (size_t i = 0; i < units; ++i) {
    auto permit = semaphore.Acquire(kPatience);
    EXPECT_THAT(permit, IsOk());
    if (!permit.ok()) return told;
    told += permit->previous_owner_died() ? 1 : 0;
    permits.push_back(*std::move(permit));
  }
  EXPECT_FALSE(semaphore.Acquire(absl::ZeroDuration()).ok());
  return told;
}

// The same after the death of one who may have held one of them: of it one is
// told, and no more.
template <typename S>
bool InheritUnits(S& semaphore, size_t units) {
  const int told = TakeUnits(semaphore, units);
  EXPECT_LE(told, 1);
  auto again = semaphore.Acquire(kPatience);
  EXPECT_THAT(again, IsOk());
  EXPECT_FALSE(again.ok() && again->previous_owner_died()) << "told twice";
  return told == 1;
}

// What both kinds have in common.
template <typename S>
std::vector<Operation> SemaphoreOperations(const std::string& name,
                                           std::optional<S> World::*s) {
  const auto acquire = [s](World& world) { (void)(world.*s)->Acquire(); };
  const auto all_taken = [s](World& world) {
    auto first = std::make_shared<Permit>(*(world.*s)->Acquire());
    world.permit.emplace(*(world.*s)->Acquire());
    world.release = [first] { (void)first->Release(); };
  };
  return {
      {.name = name + "AcquireAndGiveBack",
       .operate = acquire,
       .check =
           [s](World& world, const KillPoint& point, Observed& observed) {
             observed.Told(point, InheritUnits(*(world.*s), 2));
           },
       .tells = true},
      {.name = name + "AcquireSleeping",
       .arrange = all_taken,
       .operate = acquire,
       // One unit only: to give back the other one needs the victim, which is
       // stopped somewhere by then.
       .wake = Release,
       .check =
           [s](World& world, const KillPoint& point, Observed& observed) {
             EXPECT_THAT(world.permit->Release(), IsOk());
             observed.Told(point, InheritUnits(*(world.*s), 2));
           },
       .tells = true},
      {.name = name + "Inherit",
       .arrange =
           [s](World& world) {
             world.LeaveADead([&] {
               // Held to the end, which is SIGKILL.
               static auto first = (world.*s)->Acquire();
               static auto second = (world.*s)->Acquire();
             });
           },
       .operate = acquire,
       .check =
           [s](World& world, const KillPoint& point, Observed& observed) {
             // Of both units, but of the one that the victim had and gave back:
             // of that the victim was told. One unit may be told of once more
             // to those who come later, where the heir died telling.
             const int told = TakeUnits(*(world.*s), 2);
             EXPECT_THAT(told, ::testing::AnyOf(1, 2));
             observed.told += told;
             observed.Effect(point, told == 1);
           },
       .tells = true},
      {.name = name + "Consume",
       .prepare =
           [s](World& world) { world.permit.emplace(*(world.*s)->Acquire()); },
       .operate = [](World& world) { (void)world.permit->Consume(); },
       .check =
           [s](World& world, const KillPoint& point, Observed& observed) {
             auto one = (world.*s)->Acquire(kPatience);
             ASSERT_THAT(one, IsOk());
             auto two = (world.*s)->Acquire(absl::ZeroDuration());
             observed.Effect(point, !two.ok());
             // Consumed first, and given back then: in between the first one to
             // come has it of the dead, and there is no second.
             const bool first = one->previous_owner_died();
             const bool second = two.ok() && two->previous_owner_died();
             EXPECT_FALSE(first && two.ok());
             observed.Told(point, first || second);
           },
       .tells = true},
  };
}

std::vector<Operation> Semaphores() {
  std::vector<Operation> all =
      SemaphoreOperations<Semaphore>("Semaphore", &World::semaphore);
  for (Operation& operation : SemaphoreOperations<BoundedSemaphore>(
           "BoundedSemaphore", &World::bounded)) {
    all.push_back(std::move(operation));
  }
  all.push_back(
      {.name = "SemaphoreRelease",
       .operate = [](World& world) { (void)world.semaphore->Release(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             const uint64_t units = *world.semaphore->Available();
             EXPECT_THAT(units, ::testing::AnyOf(2u, 3u));
             observed.Effect(point, units == 3);
             EXPECT_FALSE(InheritUnits(*world.semaphore, units));
           }});
  all.push_back(
      {.name = "BoundedSemaphoreRelease",
       .arrange =
           [](World& world) {
             EXPECT_THAT(world.bounded->Acquire()->Consume(), IsOk());
           },
       .operate = [](World& world) { (void)world.bounded->Release(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             const uint64_t units = *world.bounded->Available();
             EXPECT_THAT(units, ::testing::AnyOf(1u, 2u));
             observed.Effect(point, units == 2);
             EXPECT_FALSE(InheritUnits(*world.bounded, units));
             EXPECT_EQ(world.bounded->Release().ok(), units == 1);
             EXPECT_THAT(world.bounded->Release(),
                         StatusIs(absl::StatusCode::kFailedPrecondition,
                                  ::testing::HasSubstr("of at most 2")));
           }});
  return all;
}

std::vector<Operation> Operations() {
  std::vector<Operation> all;
  for (auto more : {Mutexes(), Semaphores()}) {
    for (Operation& operation : more) all.push_back(std::move(operation));
  }
  return all;
}

class LockKillTest : public ::testing::TestWithParam<Operation> {
 protected:
  // Stale segments of others are not ours to remove.
  static void SetUpTestSuite() { testing::EnterOwnDevShm(); }
};

INSTANTIATE_TEST_SUITE_P(Operations, LockKillTest,
                         ::testing::ValuesIn(Operations()),
                         [](const auto& info) { return info.param.name; });

TEST_P(LockKillTest, Survived) { testing::CheckSurvival(GetParam(), kTick); }

}  // namespace
}  // namespace ipc::shm
