// A process killed after every machine instruction of waiting for others and of
// waking them. Afterwards the survivors go on within two park ticks, nobody is
// let through or woken for nothing, and no notification is lost.
//
//   bazel test -c opt //tests/ipc/shm:wait_kill_test
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/recursive_mutex.h"
#include "tests/ipc/shm/kill_world.h"
#include "tests/testing/child.h"
#include "tests/testing/kill_operations.h"
#include "tests/testing/kill_points.h"
#include "tests/testing/own_dev_shm.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

std::vector<Operation> Conditions() {
  const auto lock = [](World& world) { world.mutex->lock(); };
  const auto wait = [](World& world) {
    (void)world.condition->Wait(*world.mutex);
    world.ChangeGuarded();
    world.mutex->unlock();
  };
  const auto notify = [](World& world) {
    const std::lock_guard<Mutex> guard(*world.mutex);
    (void)world.condition->Notify();
  };
  const auto expect_nobody_waits = [](World& world, auto& mutex) {
    const std::lock_guard guard(mutex);
    EXPECT_THAT(world.condition->Notify(), IsOkAndHolds(0u))
        << "the dead do not count";
    EXPECT_EQ(world.condition->Wait(mutex, absl::ZeroDuration()).code(),
              absl::StatusCode::kDeadlineExceeded);
  };
  const auto check_nobody_waits = [expect_nobody_waits](World& world,
                                                        const KillPoint& point,
                                                        Observed& observed) {
    const bool told = InheritLock(world, *world.mutex);
    EXPECT_FALSE(told && point.completed);
    observed.told += told ? 1 : 0;
    expect_nobody_waits(world, *world.mutex);
  };
  // Of those that live each one was notified by the victim, or is by us. The
  // dead one's mutex is inherited by us, or by one that the victim has woken.
  const auto check_waiters = [](World& world, const KillPoint& point,
                                Observed& observed) {
    int inherited = InheritLock(world, *world.mutex) ? 1 : 0;
    {
      const std::lock_guard<Mutex> guard(*world.mutex);
      const auto notified = world.condition->NotifyAll();
      ASSERT_THAT(notified, IsOk());
      observed.Effect(point, *notified == 0);
    }
    for (std::optional<Child>* waiter : {&world.other, &world.another}) {
      if (!waiter->has_value()) continue;
      const int told = (*waiter)->Wait();
      EXPECT_THAT(told, ::testing::AnyOf(World::kNotified,
                                         World::kNotifiedAndInherited));
      inherited += told == World::kNotifiedAndInherited ? 1 : 0;
    }
    EXPECT_LE(inherited, 1) << "told twice";
    observed.Told(point, inherited > 0);
  };
  // Of a victim that was notified, while another one waited. Either it returned
  // with what it was told, or the other one is told.
  const auto check_passed_on = [check_nobody_waits](World& world,
                                                    const KillPoint& point,
                                                    Observed& observed) {
    if (!world.other.has_value()) {
      return check_nobody_waits(world, point, observed);
    }
    const bool taken = world.condition_header->waiters[0].word.load() == 0;
    const bool returned = world.guarded[0] != 0;
    const bool told = InheritLock(world, *world.mutex);
    observed.Effect(point, taken);
    observed.told += told ? 1 : 0;
    EXPECT_TRUE(taken || !returned);
    EXPECT_TRUE(told || returned || !taken)
        << "taken by one that had not returned: it had no mutex";
    world.other->Continue();
    if (taken) {
      const std::lock_guard<Mutex> guard(*world.mutex);
      EXPECT_THAT(world.condition->Notify(), IsOkAndHolds(1u));
    }
    EXPECT_EQ(world.other->Wait(), 0) << "not notified";
  };
  return {
      {.name = "ConditionWait",
       .prepare = lock,
       .operate = wait,
       .wake = notify,
       .check = check_nobody_waits,
       .tells = true},
      {.name = "ConditionWaitUntilDeadline",
       .prepare = lock,
       .operate =
           [](World& world) {
             (void)world.condition->Wait(*world.mutex, absl::ZeroDuration());
             world.mutex->unlock();
           },
       .check = check_nobody_waits,
       .tells = true},
      {.name = "ConditionWaitWithARecursiveMutex",
       .prepare =
           [](World& world) {
             world.recursive->lock();
             world.recursive->lock();
           },
       .operate =
           [](World& world) {
             (void)world.condition->Wait(*world.recursive);
             world.ChangeGuarded();
             world.recursive->unlock();
             world.recursive->unlock();
           },
       .wake =
           [](World& world) {
             const std::lock_guard<RecursiveMutex> guard(*world.recursive);
             EXPECT_THAT(world.condition->Notify(), IsOkAndHolds(1u));
           },
       .check =
           [expect_nobody_waits](World& world, const KillPoint& point,
                                 Observed& observed) {
             const bool told = InheritLock(world, *world.recursive);
             EXPECT_FALSE(told && point.completed);
             observed.told += told ? 1 : 0;
             expect_nobody_waits(world, *world.recursive);
           },
       .tells = true},
      {.name = "ConditionWaitBesideAnother",
       .prepare = lock,
       .operate = wait,
       // It has waited longer, and so it is its turn.
       .wake =
           [notify](World& world) {
             world.StartWaiter();
             world.other->Stop();
             notify(world);
           },
       .check = check_passed_on,
       .tells = true},
      {.name = "ConditionNotify",
       .arrange = [](World& world) { world.StartWaiter(); },
       .operate = notify,
       .check = check_waiters,
       .tells = true},
      {.name = "ConditionNotifyAll",
       .arrange =
           [](World& world) {
             world.StartWaiter();
             world.another.emplace(world.Waiter(world.mutex));
           },
       .operate =
           [](World& world) {
             const std::lock_guard<Mutex> guard(*world.mutex);
             (void)world.condition->NotifyAll();
           },
       .check = check_waiters,
       .tells = true},
      {.name = "ConditionNotifyPastADead",
       .arrange =
           [](World& world) {
             Child dead = world.Waiter(world.mutex);
             world.StartWaiter();
             dead.Kill();
           },
       .operate = notify,
       .check = check_waiters,
       .tells = true},
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
  std::thread thread(
      [&] { EXPECT_THAT(world.barrier->Wait(kPatience), IsOk()); });
  EXPECT_THAT(world.barrier->Wait(kPatience), IsOk());
  thread.join();
}
void CheckBarrierAfterReset(World& world) {
  ASSERT_THAT(world.barrier->Reset(), IsOk());
  CheckBarrier(world);
}
void CheckBrokenByADeath(World& world) {
  EXPECT_THAT(world.barrier->Wait(kPatience),
              StatusIs(absl::StatusCode::kAborted,
                       ::testing::HasSubstr("a process died waiting at it")));
  CheckBarrierAfterReset(world);
}

std::vector<Operation> Barriers() {
  // The victim was the last one to come. Nobody tells the other one: it finds
  // out by itself.
  const auto check_last = [](World& world, const KillPoint& point,
                             Observed& observed) {
    const bool let_through = world.barrier_header->state.load() != 0;
    const bool had_come = world.BarrierPlace(1) != 0;
    observed.Effect(point, let_through);
    world.other->Continue();
    if (!let_through && !had_come) {
      EXPECT_THAT(world.barrier->Wait(kPatience), IsOk()) << "now we are it";
    }
    const bool broken = !let_through && had_come;
    EXPECT_EQ(world.other->Wait(),
              static_cast<int>(broken ? absl::StatusCode::kAborted
                                      : absl::StatusCode::kOk));
    observed.told += broken ? 1 : 0;
    broken ? CheckBrokenByADeath(world) : CheckBarrier(world);
  };
  return {
      {.name = "BarrierWaitFirst",
       .operate = [](World& world) { (void)world.barrier->Wait(); },
       .wake =
           [](World& world) {
             EXPECT_THAT(world.barrier->Wait(kPatience), IsOk());
           },
       .check =
           [](World& world, const KillPoint&, Observed& observed) {
             const bool waited = world.barrier_header->state.load() == 0 &&
                                 world.BarrierPlace(0) != 0;
             observed.told += waited ? 1 : 0;
             waited ? CheckBrokenByADeath(world) : CheckBarrier(world);
           },
       .tells = true},
      {.name = "BarrierWaitLast",
       .arrange = [](World& world) { world.StartParty(); },
       .operate = [](World& world) { (void)world.barrier->Wait(); },
       .check = check_last,
       .tells = true},
      {.name = "BarrierWaitLastWithAnAction",
       .arrange = [](World& world) { world.StartParty(); },
       .operate =
           [](World& world) {
             (void)world.barrier->Wait(absl::InfiniteDuration(),
                                       [&] { world.ChangeGuarded(); });
           },
       .check =
           [check_last](World& world, const KillPoint& point,
                        Observed& observed) {
             if (world.barrier_header->state.load() != 0) {
               EXPECT_EQ(world.guarded[1], 1u) << "not before all is done";
             }
             check_last(world, point, observed);
           },
       .tells = true},
      {.name = "BarrierAbort",
       .operate = [](World& world) { (void)world.barrier->Abort(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             observed.Effect(point, *world.barrier->IsBroken());
             CheckBarrierAfterReset(world);
           }},
      {.name = "BarrierReset",
       .arrange = [](World& world) { (void)world.barrier->Abort(); },
       .operate = [](World& world) { (void)world.barrier->Reset(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             const bool broken = *world.barrier->IsBroken();
             observed.Effect(point, !broken);
             broken ? CheckBarrierAfterReset(world) : CheckBarrier(world);
           }},
  };
}

std::vector<Operation> Operations() {
  std::vector<Operation> all;
  for (auto more : {Conditions(), Events(), Barriers()}) {
    for (Operation& operation : more) all.push_back(std::move(operation));
  }
  return all;
}

class WaitKillTest : public ::testing::TestWithParam<Operation> {
 protected:
  // Stale segments of others are not ours to remove.
  static void SetUpTestSuite() { testing::EnterOwnDevShm(); }
};

INSTANTIATE_TEST_SUITE_P(Operations, WaitKillTest,
                         ::testing::ValuesIn(Operations()),
                         [](const auto& info) { return info.param.name; });

TEST_P(WaitKillTest, Survived) { testing::CheckSurvival(GetParam(), kTick); }

}  // namespace
}  // namespace ipc::shm
