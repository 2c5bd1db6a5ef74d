// The server's side of a ForkServer (see ipc/process/fork_server.h): a loop
// that forks a child for each request.
//
// If there is nothing to do for a millisecond it forks a spare one, which waits
// for a request to be handed to it, so that who asks for a child now and then
// does not wait for a fork. Without one it forks on request. (Android's zygote,
// since version 10, does the same: its "unspecialized app processes".)
//
// A program that is nothing but such a server:
//
//   int main() {
//     return ServeForks({{"render", Render}, {"index", Index}},
//                       UniqueFd(kForkServerFd));
//   }
#ifndef IPC_PROCESS_SERVE_FORKS_H_
#define IPC_PROCESS_SERVE_FORKS_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "ipc/base/unique_fd.h"

namespace ipc::process {

// What a child runs: gets the bytes and descriptors of the request, returns its
// exit code, 0 to 255. Ends like the function of Process::Start.
using ForkFunction =
    std::function<int(absl::string_view argument, std::vector<UniqueFd> fds)>;
// By the names that requests use.
using ForkFunctions = std::map<std::string, ForkFunction, std::less<>>;

struct ForkServerOptions {
  // Descriptors that server and children have besides 0, 1, 2: inherited, under
  // the same numbers.
  std::vector<int> keep_fds = {};
  // Sent to every child when the server ends, and so when its client does; 0:
  // they live on.
  int death_signal = 0;
  // Keeps a spare child, see above. It shows as a process that sleeps, and
  // takes a place of RLIMIT_NPROC.
  bool keep_spare = true;
};

// Where ForkServer::CreateFromProgram puts the server's end of the socket.
inline constexpr int kForkServerFd = 3;

// Serves the process that has made the other end of `control`, until that ends
// or closes its end: then, if it lives, until the last child has ended, too.
// Returns an exit code for main. For a process with one thread.
//
// Blocks SIGCHLD, SIGPIPE and SIGINT (the terminal's interrupt is for the
// client to act on), and children have the mask that was set before.
int ServeForks(const ForkFunctions& functions, UniqueFd control,
               const ForkServerOptions& options = {});

}  // namespace ipc::process

#endif  // IPC_PROCESS_SERVE_FORKS_H_
