#include "ipc/process/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "ipc/base/deadline.h"
#include "ipc/base/posix_error.h"

namespace ipc::process {
namespace {

// Whether `fd`, such as a pidfd, becomes readable before the deadline.
bool WaitForEnd(int fd, Deadline deadline) {
  while (true) {
    pollfd ready = {.fd = fd, .events = POLLIN, .revents = 0};
    const int n = poll(&ready, 1, deadline.PollTimeout());
    if (n > 0) return true;
    if (n == 0 && deadline.HasPassed()) return false;
  }
}

// Closes all from 3 on that are not in `kept`, which is sorted.
void CloseOthers(const std::vector<int>& kept) {
  unsigned first = 3;
  for (const int fd : kept) {
    const auto next = static_cast<unsigned>(fd);
    if (fd < 3 || next < first) continue;
    if (next > first) close_range(first, next - 1, 0);
    first = next + 1;
  }
  close_range(first, ~0U, 0);
}

// Of all files only these, which parent and child share: to flush another one
// (fflush(nullptr) does) means to wait for whoever is using it, such as a
// thread that reads standard input.
void FlushOutput() {
  std::cout.flush();
  std::clog.flush();
  fflush(stdout);
  fflush(stderr);
}

// noexcept: an exception must not end up among the frames of the parent's
// functions, which the child has a copy of.
[[noreturn]] void RunChild(const std::function<int()>& run,
                           const StartOptions& options,
                           const std::vector<int>& kept, pid_t parent,
                           UniqueFd parent_pidfd) noexcept {
  if (options.death_signal != 0) {
    prctl(PR_SET_PDEATHSIG, options.death_signal);
    // A parent that died before the line above will send nothing.
    const pid_t now = getppid();
    const bool is_orphan =
        now != parent &&
        (now != 0 || WaitForEnd(parent_pidfd.get(), Deadline::After({})));
    if (is_orphan) _exit(1);
    parent_pidfd.Reset();
  }
  if (options.keep_fds.has_value()) CloseOthers(kept);
  const int code = run();
  FlushOutput();
  _exit(code);
}

}  // namespace

absl::StatusOr<Process> Process::Start(const std::function<int()>& run,
                                       const StartOptions& options) {
  const pid_t parent = getpid();
  // For a child in another pid namespace (unshare(2) with CLONE_NEWPID), to
  // which a parent outside is number 0, alive or dead.
  UniqueFd parent_pidfd;
  if (options.death_signal != 0) {
    parent_pidfd.Reset(static_cast<int>(syscall(SYS_pidfd_open, parent, 0)));
    if (!parent_pidfd.ok()) return PosixError(errno, "pidfd_open of itself");
  }
  // Here, as each page that a child writes to, or is the first to need, costs
  // it a page fault: it allocates nothing until it runs the function.
  std::vector<int> kept = options.keep_fds.value_or(std::vector<int>());
  std::sort(kept.begin(), kept.end());
  // Or else the child would write it, too.
  FlushOutput();
  // A signal interrupts fork, and the kernel begins anew: a timer that fires
  // faster than a large process can be copied would keep it from ever ending.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  const int fork_error = pid < 0 ? errno : 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid == 0) RunChild(run, options, kept, parent, std::move(parent_pidfd));
  if (pid < 0) return PosixError(fork_error, "fork");
  // The number cannot mean another process: nobody reaps the child before.
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.ok()) {
    const int error = errno;
    kill(pid, SIGKILL);
    RetryOnEintr([&] { return waitpid(pid, nullptr, 0); });
    return PosixError(error, absl::StrCat("pidfd_open of process ", pid));
  }
  return Process(pid, std::move(pidfd));
}

absl::StatusOr<ExitStatus> Process::Join(absl::Duration timeout) {
  if (exit_status_.has_value()) return *exit_status_;
  const Deadline deadline = Deadline::After(timeout);
  // The pidfd first, in either case: a report may come to nothing (below), and
  // then the child lives on.
  if (!WaitForEnd(pidfd_.get(), deadline)) {
    return absl::DeadlineExceededError(
        absl::StrCat("process ", pid_, " has not ended within ",
                     absl::FormatDuration(timeout)));
  }
  absl::StatusOr<ExitStatus> status =
      report_.ok() ? ReceiveReport(deadline, timeout) : Reap();
  if (status.ok()) exit_status_ = *status;
  return status;
}

absl::StatusOr<ExitStatus> Process::Reap() {
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
  return info.si_code == CLD_EXITED ? ExitStatus::Exited(info.si_status)
                                    : ExitStatus::Killed(info.si_status);
}

absl::StatusOr<ExitStatus> Process::ReceiveReport(Deadline deadline,
                                                  absl::Duration timeout) {
  if (!WaitForEnd(report_.get(), deadline)) {
    return absl::DeadlineExceededError(absl::StrCat(
        "process ", pid_, " has ended, but within ",
        absl::FormatDuration(timeout), " its parent has not told how"));
  }
  // Written in one piece, as it is shorter than PIPE_BUF.
  ExitReport report;
  const ssize_t n = RetryOnEintr(
      [&] { return read(report_.get(), &report, sizeof(report)); });
  if (n < 0) {
    return PosixError(errno, absl::StrCat("waiting for process ", pid_));
  }
  if (n == 0) {
    return absl::UnavailableError(absl::StrCat(
        "process ", pid_,
        " has ended, and how is unknown: its parent, a fork server, ended "
        "first. Let the process say itself what it has done"));
  }
  if (n != sizeof(report)) {
    return absl::DataLossError(
        absl::StrCat("half a report of the end of process ", pid_));
  }
  return ExitStatus{.code = report.code, .signal = report.signal};
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
