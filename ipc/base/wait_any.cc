#include "ipc/base/wait_any.h"

#include <errno.h>
#include <poll.h>

#include "absl/strings/str_cat.h"
#include "ipc/base/deadline.h"
#include "ipc/base/posix_error.h"

namespace ipc {

absl::StatusOr<std::vector<size_t>> WaitAny(
    absl::Span<const Waitable* const> waitables, absl::Duration timeout) {
  if (waitables.empty() && timeout == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(
        "WaitAny for nothing, without a time-out, would be for ever");
  }
  Deadline deadline = Deadline::After(timeout);
  std::vector<pollfd> polled(waitables.size());
  for (size_t i = 0; i < waitables.size(); ++i) {
    polled[i] = {.fd = waitables[i]->poll_fd(), .events = POLLIN, .revents = 0};
    // poll ignores negative ones.
    if (polled[i].fd < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "WaitAny: number ", i,
          " has no descriptor: it is closed, or it is a Queue that wants "
          "EnablePolling first"));
    }
    // Then only a look at the others.
    if (waitables[i]->is_ready())
      deadline = Deadline::After(absl::ZeroDuration());
  }
  std::vector<size_t> ready;
  while (true) {
    const int n = poll(polled.data(), polled.size(), deadline.PollTimeout());
    if (n < 0 && errno != EINTR) {
      return PosixError(
          errno, absl::StrCat("poll of ", polled.size(), " descriptors"));
    }
    if (n > 0 || (n == 0 && deadline.HasPassed())) break;
  }
  for (size_t i = 0; i < polled.size(); ++i) {
    if ((polled[i].revents & POLLNVAL) != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "WaitAny: number ", i, ", fd ", polled[i].fd, ", is not open"));
    }
    if (polled[i].revents != 0 || waitables[i]->is_ready()) ready.push_back(i);
  }
  return ready;
}

}  // namespace ipc
