#include "ipc/pipe/sigpipe.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

namespace ipc::pipe {
namespace {

sigset_t OnlySigpipe() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  return set;
}

}  // namespace

SigpipeGuard::SigpipeGuard() {
  const sigset_t sigpipe = OnlySigpipe();
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
  was_blocked_ = sigismember(&before, SIGPIPE) == 1;
  if (was_blocked_) {
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
  }
}

SigpipeGuard::~SigpipeGuard() {
  if (was_blocked_) return;
  const int saved_errno = errno;
  const sigset_t sigpipe = OnlySigpipe();
  pthread_sigmask(SIG_UNBLOCK, &sigpipe, nullptr);
  errno = saved_errno;
}

void SigpipeGuard::Consume() const {
  if (was_pending_) return;
  const int saved_errno = errno;
  const sigset_t sigpipe = OnlySigpipe();
  const timespec now = {};
  while (sigtimedwait(&sigpipe, nullptr, &now) < 0 && errno == EINTR) {
  }
  errno = saved_errno;
}

}  // namespace ipc::pipe
