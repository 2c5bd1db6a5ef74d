#include "ipc/pipe/sender_life.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"

namespace ipc::pipe {
namespace {

// OFD locks want l_pid == 0.
struct flock WriteLock(off_t start, off_t length) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}

}  // namespace

absl::StatusOr<UniqueFd> LockWhileSending(int fd) {
  // The description of `fd` itself is shared with those who inherited it, and
  // so would its locks be.
  const std::string path = absl::StrCat("/proc/self/fd/", fd);
  UniqueFd own(RetryOnEintr(
      [&] { return open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC); }));
  if (!own.ok()) {
    // A FIFO without a reader.
    return PosixError(errno == ENXIO ? EPIPE : errno,
                      absl::StrCat("opening the pipe anew as ", path,
                                   ", to lock it for watch_sender"));
  }
  // Taken is ours only if a child has it that was forked in an earlier message.
  for (off_t byte = gettid();; byte += off_t{1} << 32) {
    struct flock lock = WriteLock(byte, 1);
    if (fcntl(own.get(), F_OFD_SETLK, &lock) == 0) return own;
    if (errno != EAGAIN && errno != EACCES) {
      return PosixError(errno, absl::StrCat("locking ", path));
    }
  }
}

bool IsLockedForSending(int fd) {
  struct flock lock = WriteLock(0, 0);  // all there is
  // Who cannot tell had better wait.
  return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

bool HasExited(pid_t pid) {
  const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!process.ok()) return errno == ESRCH;
  pollfd p = {.fd = process.get(), .events = POLLIN, .revents = 0};
  return RetryOnEintr([&] { return poll(&p, 1, 0); }) == 1;
}

}  // namespace ipc::pipe
