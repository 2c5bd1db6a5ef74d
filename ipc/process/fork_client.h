// The client's side of a ForkServer, without its turns: requests to the server,
// and its answers, each of which may be waited for later. For one thread at a
// time; ForkServer and ProcessPool are made of it. See fork_server.h for what
// it promises.
//
//   absl::StatusOr<uint64_t> number = client->Request("resize", "", {}, soon);
//   ...
//   absl::StatusOr<Process> child = client->Await(*number, deadline);
//   if (absl::IsDeadlineExceeded(child.status())) client->GiveUp(*number);
#ifndef IPC_PROCESS_FORK_CLIENT_H_
#define IPC_PROCESS_FORK_CLIENT_H_

#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ipc/base/deadline.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/process.h"
#include "ipc/process/serve_forks.h"
#include "ipc/process/spawn.h"

namespace ipc::process {

class ForkClient {
 public:
  static absl::StatusOr<std::unique_ptr<ForkClient>> Create(
      ForkFunctions functions, const ForkServerOptions& options);
  static absl::StatusOr<std::unique_ptr<ForkClient>> CreateFromProgram(
      SpawnOptions program);

  ForkClient(const ForkClient&) = delete;
  ForkClient& operator=(const ForkClient&) = delete;
  // Kills the children that were started and not awaited, and does not wait.
  ~ForkClient();

  // Asks for a child. Waits, not longer than to the deadline, only if the
  // server has left as many requests unread as its socket holds.
  absl::StatusOr<uint64_t> Request(absl::string_view function,
                                   absl::string_view argument,
                                   absl::Span<const int> fds,
                                   Deadline deadline);
  // The child of a request. DeadlineExceeded: it may be awaited again, or is to
  // be given up. After everything else the request is forgotten.
  absl::StatusOr<Process> Await(uint64_t number, Deadline deadline);
  // Nobody will await it: if it has a child, or will have one, that is killed,
  // at the latest when the next answer is received, by Stop or the destructor.
  void GiveUp(uint64_t number);

  // Gives up all requests, and waits until the server has ended.
  absl::Status Stop(Deadline deadline);

  const Process& server() const { return server_; }

 private:
  // A request that has not been answered.
  struct Asked {
    uint64_t number;
    UniqueFd report;  // none: nobody wants the child
    UniqueFd room;    // a descriptor that its pidfd may replace
    std::string function;
  };
  struct Answer;

  ForkClient(Process server, UniqueFd control)
      : server_(std::move(server)), control_(std::move(control)) {}

  absl::Status CheckUsable() const;
  absl::Status Send(uint64_t number, absl::string_view function,
                    absl::string_view argument, const std::vector<int>& fds,
                    Deadline deadline);
  // One answer: notes it, or kills the child if nobody wants it.
  absl::Status Receive(Deadline deadline);
  absl::StatusOr<Answer> ReceiveAnswer();
  absl::StatusOr<Process> Accept(Asked asked, Answer answer);
  void Disown(const Answer& answer);
  // Says so to the server, where the child could not be killed here.
  void SendDisowned();
  // Closes the socket; no child is left that nobody has.
  void Close();
  absl::Status Gone(Deadline deadline);
  absl::Status Silent() const;

  const pid_t owner_ = getpid();
  Process server_;
  UniqueFd control_;
  uint64_t last_number_ = 0;
  std::deque<Asked> asked_;  // in the order of their answers
  std::map<uint64_t, absl::StatusOr<Process>> answered_;
  std::vector<pid_t> disowned_;  // of which the server is still to be told
};

}  // namespace ipc::process

#endif  // IPC_PROCESS_FORK_CLIENT_H_
