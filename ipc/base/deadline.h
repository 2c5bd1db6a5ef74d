// A Deadline is a point on CLOCK_MONOTONIC; a time-out is turned into one once,
// at the start of an operation, so that retries do not stretch it.
//
// Example:
//
//   absl::Status WaitReadable(int fd, absl::Duration timeout) {
//     const Deadline deadline = Deadline::After(timeout);
//     pollfd p = {fd, POLLIN, 0};
//     int n;
//     do {
//       n = poll(&p, 1, deadline.PollTimeout());
//     } while ((n < 0 && errno == EINTR) || (n == 0 && !deadline.HasPassed()));
//     ...
//
// Thread safety: a value type, immutable after construction.
#ifndef IPC_BASE_DEADLINE_H_
#define IPC_BASE_DEADLINE_H_

#include <time.h>

#include <cstdint>

#include "absl/time/time.h"

namespace ipc {

class Deadline {
 public:
  // Never passes.
  static Deadline Infinite() { return Deadline(kInfinite); }
  // Passes `timeout` from now; at once if that is zero or less.
  static Deadline After(absl::Duration timeout) {
    return timeout == absl::InfiniteDuration() ? Infinite() : FromNow(timeout);
  }

  bool is_infinite() const { return nanoseconds_ == kInfinite; }
  bool HasPassed() const;
  // Time left, never negative.
  absl::Duration Remaining() const;
  // The sooner of two.
  static Deadline Earlier(Deadline a, Deadline b) {
    return a.nanoseconds_ < b.nanoseconds_ ? a : b;
  }

  // For poll and epoll_wait: milliseconds left, rounded up so that a wait never
  // ends early and then spins; -1 if infinite. At most INT_MAX, so a caller
  // that gets no event asks HasPassed before it gives up.
  int PollTimeout() const;
  // For calls that take an absolute CLOCK_MONOTONIC time. Not if is_infinite().
  timespec ToTimespec() const;

 private:
  static constexpr int64_t kInfinite = INT64_MAX;

  static Deadline FromNow(absl::Duration timeout);
  explicit Deadline(int64_t nanoseconds) : nanoseconds_(nanoseconds) {}

  int64_t nanoseconds_;  // of CLOCK_MONOTONIC
};

}  // namespace ipc

#endif  // IPC_BASE_DEADLINE_H_
