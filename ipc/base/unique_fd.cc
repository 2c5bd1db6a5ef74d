#include "ipc/base/unique_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"

namespace ipc {

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0) {
    const int saved_errno = errno;
    // Linux releases the descriptor even when close is interrupted, so a retry
    // could close somebody else's.
    close(fd_);
    errno = saved_errno;
  }
  fd_ = fd;
}

absl::StatusOr<UniqueFd> UniqueFd::Duplicate() const {
  UniqueFd copy(fcntl(fd_, F_DUPFD_CLOEXEC, 0));
  if (!copy.ok()) return PosixError(errno, absl::StrCat("dup of fd ", fd_));
  return copy;
}

}  // namespace ipc
