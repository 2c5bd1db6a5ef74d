// Process is a handle to a child process, by pidfd: unlike a process id it can
// never come to mean another process.
//
// Example:
//
//   absl::StatusOr<Process> child = Spawn(options);
//   child->Terminate();
//   absl::StatusOr<ExitStatus> status = child->Join(absl::Seconds(5));
//   if (absl::IsDeadlineExceeded(status.status())) child->Kill();
//
// Thread safety: as a plain value; one thread at a time may call Join.
//
// Lifetime: the destructor neither waits for nor ends the child. A child that
// is never joined stays a zombie until its parent ends.
#ifndef IPC_PROCESS_PROCESS_H_
#define IPC_PROCESS_PROCESS_H_

#include <sys/types.h>

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/waitable.h"
#include "ipc/process/exit_status.h"

namespace ipc::process {

class Process : public Waitable {
 public:
  // Takes over a child of this process.
  Process(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  Process(Process&&) = default;
  Process& operator=(Process&&) = default;

  pid_t pid() const { return pid_; }

  // Waits until the child has ended, reaps it, and says how it ended; again and
  // again, once it is known. DeadlineExceeded if it lives on; Internal if
  // somebody else has reaped it.
  absl::StatusOr<ExitStatus> Join(
      absl::Duration timeout = absl::InfiniteDuration());

  // Whether it has not ended yet (reaped or not).
  bool IsAlive() const;

  // Send SIGTERM, SIGKILL, SIGINT, any signal. To a child that has ended: OK
  // without effect, as in Python.
  absl::Status Terminate() const;
  absl::Status Kill() const;
  absl::Status Interrupt() const;
  absl::Status Signal(int signal) const;

  // The pidfd, which polls readable when the child has ended (Python's
  // sentinel, but one that no grandchild can hold open).
  int poll_fd() const override { return pidfd_.get(); }

 private:
  pid_t pid_;
  UniqueFd pidfd_;
  std::optional<ExitStatus> exit_status_;
};

}  // namespace ipc::process

#endif  // IPC_PROCESS_PROCESS_H_
