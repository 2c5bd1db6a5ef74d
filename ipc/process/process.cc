#include "ipc/process/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "ipc/base/deadline.h"
#include "ipc/base/posix_error.h"

namespace ipc::process {
namespace {

// Whether the pidfd shows the end of its process before the deadline.
bool WaitForEnd(int pidfd, Deadline deadline) {
  while (true) {
    pollfd ready = {.fd = pidfd, .events = POLLIN, .revents = 0};
    const int n = poll(&ready, 1, deadline.PollTimeout());
    if (n > 0) return true;
    if (n == 0 && deadline.HasPassed()) return false;
  }
}

}  // namespace

absl::StatusOr<ExitStatus> Process::Join(absl::Duration timeout) {
  if (exit_status_.has_value()) return *exit_status_;
  if (!WaitForEnd(pidfd_.get(), Deadline::After(timeout))) {
    return absl::DeadlineExceededError(
        absl::StrCat("process ", pid_, " has not ended within ",
                     absl::FormatDuration(timeout)));
  }
  siginfo_t info = {};
  if (RetryOnEintr([&] {
        return waitid(static_cast<idtype_t>(P_PIDFD),
                      static_cast<id_t>(pidfd_.get()), &info, WEXITED);
      }) != 0) {
    if (errno == ECHILD) {
      return absl::InternalError(
          absl::StrCat("process ", pid_,
                       " was reaped by somebody else, so how it ended is "
                       "unknown: nothing else here may wait for it"));
    }
    return PosixError(errno, absl::StrCat("waiting for process ", pid_));
  }
  exit_status_ = info.si_code == CLD_EXITED
                     ? ExitStatus::Exited(info.si_status)
                     : ExitStatus::Killed(info.si_status);
  return *exit_status_;
}

bool Process::IsAlive() const {
  return !exit_status_.has_value() &&
         !WaitForEnd(pidfd_.get(), Deadline::After(absl::ZeroDuration()));
}

absl::Status Process::Terminate() const { return Signal(SIGTERM); }
absl::Status Process::Kill() const { return Signal(SIGKILL); }
absl::Status Process::Interrupt() const { return Signal(SIGINT); }

absl::Status Process::Signal(int signal) const {
  if (exit_status_.has_value()) return absl::OkStatus();
  if (syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0) != 0 &&
      errno != ESRCH) {
    return PosixError(errno, absl::StrCat("sending ", SignalName(signal),
                                          " to process ", pid_));
  }
  return absl::OkStatus();
}

}  // namespace ipc::process
