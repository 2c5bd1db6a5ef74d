#include "ipc/base/deadline.h"

#include <algorithm>
#include <climits>

namespace ipc {
namespace {

constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;
constexpr int64_t kNanosecondsPerMillisecond = 1'000'000;

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNanosecondsPerSecond + now.tv_nsec;
}

}  // namespace

Deadline Deadline::FromNow(absl::Duration timeout) {
  // ToInt64Nanoseconds saturates, so a very long time-out is infinite.
  const int64_t nanoseconds =
      absl::ToInt64Nanoseconds(std::max(timeout, absl::ZeroDuration()));
  if (nanoseconds == kInfinite) return Infinite();
  const int64_t now = Now();
  if (nanoseconds >= kInfinite - now) return Infinite();
  return Deadline(now + nanoseconds);
}

bool Deadline::HasPassed() const {
  return !is_infinite() && Now() >= nanoseconds_;
}

absl::Duration Deadline::Remaining() const {
  if (is_infinite()) return absl::InfiniteDuration();
  return absl::Nanoseconds(std::max<int64_t>(nanoseconds_ - Now(), 0));
}

int Deadline::PollTimeout() const {
  if (is_infinite()) return -1;
  const int64_t left = std::max<int64_t>(nanoseconds_ - Now(), 0);
  return static_cast<int>(std::min<int64_t>(
      (left + kNanosecondsPerMillisecond - 1) / kNanosecondsPerMillisecond,
      INT_MAX));
}

timespec Deadline::ToTimespec() const {
  return {.tv_sec = nanoseconds_ / kNanosecondsPerSecond,
          .tv_nsec = nanoseconds_ % kNanosecondsPerSecond};
}

}  // namespace ipc
