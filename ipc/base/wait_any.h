// Waits for several Waitables at once: Python's
// multiprocessing.connection.wait.
//
// Example: answers of two workers, or the end of one.
//
//   const std::vector<const Waitable*> all = {&answers_a, &answers_b, &worker};
//   absl::StatusOr<std::vector<size_t>> ready = WaitAny(all, absl::Seconds(1));
//   if (!ready.ok()) return ready.status();
//   for (size_t i : *ready) ...  // none, if the second has passed
//
// By poll(2), so it takes time in proportion to their number; a program that
// waits for hundreds again and again has an epoll of their poll_fd()s.
//
// Thread safety: may be called from any thread; the Waitables must not be
// closed meanwhile.
#ifndef IPC_BASE_WAIT_ANY_H_
#define IPC_BASE_WAIT_ANY_H_

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/waitable.h"

namespace ipc {

// A descriptor of anybody's, that stays the owner.
class WaitableFd final : public Waitable {
 public:
  explicit WaitableFd(int fd) : fd_(fd) {}
  int poll_fd() const override { return fd_; }

 private:
  int fd_;
};

// The positions in `waitables`, ascending, of those that are ready: they have
// something to receive, or have ended, which is told in the same way. Empty if
// none was before the time-out; one of zero or less looks once. InvalidArgument
// if one of them has no descriptor, or there are none and no time-out.
absl::StatusOr<std::vector<size_t>> WaitAny(
    absl::Span<const Waitable* const> waitables,
    absl::Duration timeout = absl::InfiniteDuration());

}  // namespace ipc

#endif  // IPC_BASE_WAIT_ANY_H_
