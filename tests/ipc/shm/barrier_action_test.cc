// Actions of a Barrier that do what they should not, and parties that are
// stopped where others wait for them.
#include <cstdint>
#include <stdexcept>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/barrier.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr absl::Duration kShort = absl::Milliseconds(20);

TEST(BarrierActionTest, OneThatThrowsBreaksIt) {
  Barrier barrier = *Barrier::CreateAnonymous(uint32_t{2});
  Child other = Child::Fork([&](Child::Side) {
    return static_cast<int>(barrier.Wait(kPatience).status().code());
  });
  while (*barrier.ApproximateWaiting() < 1) std::this_thread::yield();
  EXPECT_THROW(
      (void)barrier.Wait(kPatience, [] { throw std::runtime_error("no"); }),
      std::runtime_error);
  EXPECT_EQ(other.Wait(), static_cast<int>(absl::StatusCode::kAborted));
  EXPECT_THAT(barrier.IsBroken(), IsOkAndHolds(true));
  ASSERT_THAT(barrier.Reset(), IsOk());
  Child again = Child::Fork(
      [&](Child::Side) { return barrier.Wait(kPatience).ok() ? 0 : 1; });
  EXPECT_THAT(barrier.Wait(kPatience), IsOk());
  EXPECT_EQ(again.Wait(), 0);
}

TEST(BarrierActionTest, OneThatUsesItsBarrierIsRefused) {
  Barrier barrier = *Barrier::CreateAnonymous(uint32_t{1});
  Barrier another = *Barrier::CreateAnonymous(uint32_t{1});
  EXPECT_THAT(
      barrier.Wait(kPatience,
                   [&] {
                     for (const absl::Status& status :
                          {barrier.Wait(kPatience).status(), barrier.Abort(),
                           barrier.Reset()}) {
                       EXPECT_THAT(
                           status,
                           StatusIs(absl::StatusCode::kFailedPrecondition,
                                    HasSubstr("its own action")));
                     }
                     EXPECT_THAT(barrier.IsBroken(), IsOkAndHolds(false));
                     EXPECT_THAT(another.Wait(kPatience, [] {}), IsOk());
                     EXPECT_FALSE(barrier.Abort().ok()) << "still in it";
                   }),
      IsOk());
  EXPECT_THAT(barrier.Wait(kPatience), IsOk());
}

TEST(BarrierActionTest, NobodyWaitsLongerThanHeWantsTo) {
  Barrier barrier = *Barrier::CreateAnonymous(uint32_t{1});
  Child acting = Child::Fork([&](Child::Side side) {
    return barrier.Wait(kPatience,
                        [&] {
                          side.Tell();
                          side.Hear();
                        })
                   .ok()
               ? 0
               : 1;
  });
  ASSERT_TRUE(acting.Hear());
  for (const absl::Status& status :
       {barrier.Wait(kShort).status(), barrier.Abort(kShort),
        barrier.Reset(kShort)}) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded,
                                 HasSubstr("is alive")));
  }
  EXPECT_THAT(barrier.IsBroken(), IsOkAndHolds(false));
  EXPECT_THAT(barrier.ApproximateWaiting(), IsOkAndHolds(1u));
  acting.Tell();
  EXPECT_EQ(acting.Wait(), 0);
  EXPECT_THAT(barrier.Wait(kPatience), IsOk());
}

// Let through, but killed before it left: also found by one without time.
TEST(BarrierActionTest, OneThatDoesNotWaitFindsTheDead) {
  Barrier barrier = *Barrier::CreateAnonymous(uint32_t{2});
  Child victim =
      Child::Fork([&](Child::Side) { return barrier.Wait().ok() ? 0 : 1; });
  while (*barrier.ApproximateWaiting() < 1) std::this_thread::yield();
  victim.AwaitSleep();
  victim.Stop();
  ASSERT_THAT(barrier.Wait(kPatience), IsOk());
  EXPECT_THAT(
      barrier.Wait(absl::ZeroDuration()),
      StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("do not leave")));
  victim.Kill();
  EXPECT_THAT(barrier.Wait(absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("it is broken now")));
}

}  // namespace
}  // namespace ipc::shm
