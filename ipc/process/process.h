// Process is a handle to a child process, by pidfd: unlike a process id it can
// never come to mean another process.
//
// Example, of a function; ipc/process/spawn.h starts programs:
//
//   absl::StatusOr<Process> child = Process::Start([&] {
//     return results.Send(Work()).ok() ? 0 : 1;
//   });
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

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/waitable.h"
#include "ipc/process/exit_status.h"

namespace ipc::process {

struct StartOptions {
  // If set, the child closes all descriptors from 3 on but these, so that a
  // stream ends when it should. Otherwise it has all that its parent has.
  std::optional<std::vector<int>> keep_fds = std::nullopt;

  // Sent to the child when the thread that called Start ends; see
  // SpawnOptions::death_signal.
  int death_signal = 0;
};

// How a child ended, as its parent tells somebody else: an ExitStatus.
struct ExitReport {
  int32_t code;
  int32_t signal;
};

class Process : public Waitable {
 public:
  // Runs `run` in a child, a copy of this process by fork(2); what it returns
  // is the child's exit code, from 0 to 255. Then the child ends like Python's:
  // stdout, stderr, std::cout and std::clog are flushed, but neither
  // destructors nor exit handlers run, as what they would clean up is the
  // parent's. Other files that `run` opens it must close. An exception that
  // leaves `run` is SIGABRT.
  //
  // The usual rules: of this process' threads only the one that calls Start
  // lives on in the child. What another one holds at that moment, such as a
  // mutex or half a gRPC call, stays so for ever; so start children before
  // threads, or Spawn programs. Objects of ipc are made for it, and each header
  // says what a child may do with them. To copy the page tables of a large
  // process takes time: see ipc/process/spawn.h for one that does not.
  //
  // ResourceExhausted if the kernel has no room for another process, or this
  // one none for a descriptor. Where only the child's pidfd could not be had,
  // `run` may have begun when it was killed.
  static absl::StatusOr<Process> Start(const std::function<int()>& run,
                                       const StartOptions& options = {});

  // Takes over a child of this process.
  Process(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  // Takes over a child of another process, which alone learns how it ended:
  // that one writes an ExitReport into the pipe of which `report` is the
  // reading end. See ipc/process/fork_server.h.
  Process(pid_t pid, UniqueFd pidfd, UniqueFd report)
      : pid_(pid), pidfd_(std::move(pidfd)), report_(std::move(report)) {}
  Process(Process&&) = default;
  Process& operator=(Process&&) = default;

  pid_t pid() const { return pid_; }

  // Waits until the child has ended, reaps it, and says how it ended; again and
  // again, once it is known. DeadlineExceeded if it lives on; Internal if
  // somebody else has reaped it; Unavailable if it has ended and nobody is left
  // who knows how, since it was another process' child and that one ended
  // first.
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
  absl::StatusOr<ExitStatus> Reap();
  absl::StatusOr<ExitStatus> ReceiveReport(Deadline deadline,
                                           absl::Duration timeout);

  pid_t pid_;
  UniqueFd pidfd_;
  UniqueFd report_;  // unless it is our own child
  std::optional<ExitStatus> exit_status_;
};

}  // namespace ipc::process

#endif  // IPC_PROCESS_PROCESS_H_
