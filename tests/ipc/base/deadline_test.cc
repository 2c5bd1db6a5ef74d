#include "ipc/base/deadline.h"

#include <limits.h>
#include <poll.h>
#include <time.h>

#include <cstdint>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace ipc {
namespace {

int64_t MonotonicNanoseconds(timespec t) {
  return t.tv_sec * int64_t{1'000'000'000} + t.tv_nsec;
}

TEST(DeadlineTest, InfiniteNeverPasses) {
  for (const Deadline deadline :
       {Deadline::Infinite(), Deadline::After(absl::InfiniteDuration()),
        // Beyond what 64 bits of nanoseconds hold.
        Deadline::After(absl::Hours(24 * 366 * 300))}) {
    EXPECT_TRUE(deadline.is_infinite());
    EXPECT_FALSE(deadline.HasPassed());
    EXPECT_EQ(deadline.Remaining(), absl::InfiniteDuration());
    EXPECT_EQ(deadline.PollTimeout(), -1);
  }
}

TEST(DeadlineTest, ZeroOrLessHasPassedAtOnce) {
  for (const absl::Duration timeout :
       {absl::ZeroDuration(), absl::Seconds(-5), -absl::InfiniteDuration()}) {
    const Deadline deadline = Deadline::After(timeout);
    EXPECT_FALSE(deadline.is_infinite());
    EXPECT_TRUE(deadline.HasPassed());
    EXPECT_EQ(deadline.Remaining(), absl::ZeroDuration());
    EXPECT_EQ(deadline.PollTimeout(), 0);
  }
}

TEST(DeadlineTest, RemainingCountsDown) {
  const Deadline deadline = Deadline::After(absl::Hours(1));
  EXPECT_FALSE(deadline.HasPassed());
  const absl::Duration before = deadline.Remaining();
  EXPECT_LE(before, absl::Hours(1));
  // It is the time that is under test.
  absl::SleepFor(absl::Milliseconds(2));
  EXPECT_LE(deadline.Remaining(), before - absl::Milliseconds(2));
}

// A poll that ends early would be called again and again with 0.
TEST(DeadlineTest, PollTimeoutRoundsUp) {
  const Deadline deadline = Deadline::After(absl::Microseconds(1500));
  const int timeout = deadline.PollTimeout();
  poll(nullptr, 0, timeout);
  EXPECT_TRUE(deadline.HasPassed());
}

TEST(DeadlineTest, PollTimeoutIsAtMostIntMax) {
  EXPECT_EQ(Deadline::After(absl::Hours(24 * 365)).PollTimeout(), INT_MAX);
}

TEST(DeadlineTest, ToTimespecIsOnTheMonotonicClock) {
  timespec before;
  clock_gettime(CLOCK_MONOTONIC, &before);
  const timespec at = Deadline::After(absl::Seconds(10)).ToTimespec();
  timespec after;
  clock_gettime(CLOCK_MONOTONIC, &after);
  const int64_t ten_seconds = 10'000'000'000;
  EXPECT_GE(MonotonicNanoseconds(at),
            MonotonicNanoseconds(before) + ten_seconds);
  EXPECT_LE(MonotonicNanoseconds(at),
            MonotonicNanoseconds(after) + ten_seconds);
  EXPECT_LT(at.tv_nsec, 1'000'000'000);
}

TEST(DeadlineTest, EarlierIsTheSoonerOfTwo) {
  const Deadline soon = Deadline::After(absl::ZeroDuration());
  const Deadline late = Deadline::After(absl::Hours(1));
  EXPECT_TRUE(Deadline::Earlier(soon, late).HasPassed());
  EXPECT_TRUE(Deadline::Earlier(late, soon).HasPassed());
  EXPECT_FALSE(Deadline::Earlier(late, Deadline::Infinite()).is_infinite());
}

}  // namespace
}  // namespace ipc
