// A process that is stopped while it changes a semaphore keeps those waiting
// who want a unit, and nobody else.
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/semaphore.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

TEST(SemaphoreStoppedTest, OnlyAcquireWaitsForOneThatIsStopped) {
  Segment segment = *Segment::CreateAnonymous(Semaphore::SizeBytes());
  Semaphore semaphore = *Semaphore::Attach(segment, 0, 4);
  auto& lock =
      reinterpret_cast<internal::SemaphoreHeader*>(segment.bytes().data())
          ->monitor.lock;
  std::optional<Permit> destroyed = *semaphore.Acquire();
  Permit released = *semaphore.Acquire();
  Permit consumed = *semaphore.Acquire();
  Child stopped = Child::Fork([&](Child::Side side) {
    const auto self = segment.Self();
    if (!self.ok() || !lock.TryAcquire(*self)) return 1;
    side.Tell();
    side.Hear();
    return lock.Release(segment, *self, /*dirty=*/false) ? 0 : 2;
  });
  ASSERT_TRUE(stopped.Hear());

  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(1u));
  destroyed.reset();
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(2u));
  EXPECT_THAT(released.Release(), IsOk());
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(3u));
  EXPECT_THAT(consumed.Consume(), IsOk());
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(3u));
  EXPECT_THAT(semaphore.Release(), IsOk());
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(4u));
  EXPECT_THAT(semaphore.Acquire(absl::Milliseconds(20)),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("is alive and keeps the lock")));

  stopped.Tell();
  EXPECT_EQ(stopped.Wait(), 0);
  EXPECT_THAT(semaphore.Acquire(kPatience), IsOk());
}

// What is given back without the lock is noticed by one that sleeps.
TEST(SemaphoreStoppedTest, WhoSleepsIsWokenByAPermitThatEnds) {
  BoundedSemaphore semaphore = *BoundedSemaphore::CreateAnonymous(1);
  for (int i = 0; i < 20; ++i) {
    std::optional<Permit> permit = *semaphore.Acquire(kPatience);
    Child child = Child::Fork(
        [&](Child::Side) { return semaphore.Acquire(kPatience).ok() ? 0 : 1; });
    child.AwaitSleep();
    permit.reset();
    EXPECT_EQ(child.Wait(), 0);
  }
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(1u));
}

}  // namespace
}  // namespace ipc::shm
