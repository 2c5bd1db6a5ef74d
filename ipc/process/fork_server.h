// A ForkServer is a small process, made early, that forks children on request:
// a start costs the same however large this process has become, and is safe
// however many threads it has.
//
// Example:
//
//   // First thing in main, before threads and data:
//   absl::StatusOr<ForkServer> server = ForkServer::Create(
//       {{"resize", [](absl::string_view name, std::vector<UniqueFd> fds) {
//           return Resize(name, fds[0].get()) ? 0 : 1;
//         }}});
//   ...
//   absl::StatusOr<Process> child =
//       server->Start("resize", "small", {image.get()});
//   absl::StatusOr<ExitStatus> status = child->Join(absl::Seconds(5));
//   ...
//   absl::Status stopped = server->Stop();
//
// Which of three:
//   Process::Start   a closure, with all that it captures, in a copy of this
//                    process: costs what that is large, wants a single thread.
//   Spawn            a program: costs an execve and what the dynamic linker
//                    does, wants nothing.
//   ForkServer       a function that was named beforehand and some bytes: the
//                    cheapest by far, as nothing is loaded, linked or begun.
//
// Create forks the server off this process, so that functions may be closures
// and no second program has to be found: early in main that is small. If it is
// too late for that, CreateFromProgram starts a program that is a server (see
// ipc/process/serve_forks.h). Linked statically (-static), that one is also the
// faster of the two, as most of a fork is copying the maps of shared libraries.
//
// The server keeps a spare child, forked while it has nothing else to do, and
// hands a request to it: who starts children now and then does not wait for a
// fork (ForkServerOptions::keep_spare).
//
// Guarantees
// - A child holds 0, 1, 2 (the server's, and so those that this process had),
//   the descriptors that the request granted, those of
//   ForkServerOptions::keep_fds, and no other.
// - The socket between the two is a pair that nobody else can reach: the
//   server's children close it first. Children of this process that inherit the
//   other end cannot start anything by this object (FailedPrecondition); let
//   them have StartOptions::keep_fds.
// - If this process ends, however, the server does; children then get
//   ForkServerOptions::death_signal.
// - If a child ends, Join tells how, wherever the handle is by then in this
//   process. The server reaps it: there are no zombies of children that nobody
//   joins.
// - If the server is killed, Start is Unavailable and says so, while children
//   live on, and only how they end stays unknown (Unavailable from Join, when
//   they have). Create another one.
//
// Fork: for the process that created it.
//
// Thread safety: Start and Stop may be called from many threads; they take
// turns.
//
// Lifetime: the destructor closes the socket, upon which the server ends once
// its last child has; it does not wait. A server that was not stopped stays a
// zombie of this process.
#ifndef IPC_PROCESS_FORK_SERVER_H_
#define IPC_PROCESS_FORK_SERVER_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/process/process.h"
#include "ipc/process/serve_forks.h"
#include "ipc/process/spawn.h"

namespace ipc::process {

class ForkServer {
 public:
  // Forks a server off this process. Errors as of Process::Start, whose rules
  // hold for this one fork.
  static absl::StatusOr<ForkServer> Create(
      ForkFunctions functions, const ForkServerOptions& options = {});
  // Spawns a program that calls ServeForks with kForkServerFd; that descriptor
  // must not be in `program.fds`. A program that does not is found out by the
  // first Start.
  static absl::StatusOr<ForkServer> CreateFromProgram(SpawnOptions program);

  ForkServer(ForkServer&&) noexcept;
  ForkServer& operator=(ForkServer&&) noexcept;
  ~ForkServer();

  // Starts a child that runs `function` with `argument` and duplicates of
  // `fds`, in this order, under whatever numbers.
  //
  // NotFound if the server has no such function; InvalidArgument if `argument`
  // and name exceed 64 KiB (grant a descriptor instead) or there are more than
  // 252 fds; ResourceExhausted if the kernel has no room for a process, or the
  // server or this process (three are needed) none for a descriptor;
  // Unavailable if the server has ended; DeadlineExceeded if it did not answer:
  // it is stopped, or the machine very busy. A child that it starts after all
  // is killed, at the latest by the next Start, by Stop or the destructor.
  absl::StatusOr<Process> Start(
      absl::string_view function, absl::string_view argument = "",
      absl::Span<const int> fds = {},
      absl::Duration timeout = absl::InfiniteDuration());

  // Starts no more children, waits for those that live, and reaps the server.
  // DeadlineExceeded if a child lives on, or the server is stopped; may be
  // called again.
  absl::Status Stop(absl::Duration timeout = absl::InfiniteDuration());

  // The server itself, which polls readable when it has ended.
  const Process& server() const;

 private:
  class Client;
  explicit ForkServer(std::unique_ptr<Client> client);

  std::unique_ptr<Client> client_;
};

}  // namespace ipc::process

#endif  // IPC_PROCESS_FORK_SERVER_H_
