// Turns errno into absl::Status, by one table for all of Parley.
//
// Example:
//
//   if (ftruncate(fd, size) != 0) {
//     return PosixError(errno, absl::StrCat("ftruncate ", name, " to ", size));
//   }
//
// gives INVALID_ARGUMENT "ftruncate scores to -1: Invalid argument".
#ifndef IPC_BASE_POSIX_ERROR_H_
#define IPC_BASE_POSIX_ERROR_H_

#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ipc {

// A status for `error`, an errno value. `context` names the operation and the
// object it was done to. The codes are those of absl::ErrnoToStatusCode, but
// for a peer that has gone (EPIPE, ECONNRESET, ECONNREFUSED), which is
// Unavailable, and for too many descriptors on their way (ETOOMANYREFS), which
// is ResourceExhausted.
absl::Status PosixError(int error, absl::string_view context);

// `status` with `context` and a colon before its message; OK stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

// Calls `call` again for as long as a signal interrupts it.
template <typename Call>
auto RetryOnEintr(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result == -1 && errno == EINTR);
  return result;
}

}  // namespace ipc

#endif  // IPC_BASE_POSIX_ERROR_H_
