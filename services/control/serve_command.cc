#include "services/control/serve_command.h"

#include <poll.h>
#include <stdio.h>

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "services/control/binaries.h"
#include "services/control/exit_codes.h"
#include "services/control/interrupt.h"
#include "services/control/runtime_directory.h"
#include "services/control/server.h"
#include "services/control/supervisor_daemon.h"

namespace parley::control {
namespace {

constexpr char kSupervisorLabel[] = "//services/supervisor";
// How soon the death of the supervisor is seen.
constexpr int kPollMilliseconds = 200;

absl::Status Serve(const ServeCommandOptions& options,
                   const Interrupt& interrupt) {
  const absl::StatusOr<RuntimeDirectory> directory = RuntimeDirectory::Open(
      options.directory.empty() ? DefaultRuntimeDirectory()
                                : options.directory);
  if (!directory.ok()) return directory.status();
  const absl::StatusOr<ipc::UniqueFd> lock =
      TakeLock(directory->control_lock());
  if (absl::IsUnavailable(lock.status())) {
    return absl::AlreadyExistsError(
        absl::StrCat("another `parley serve` has ", directory->path,
                     "; stop that one, or name another --directory"));
  }
  if (!lock.ok()) return lock.status();

  BinaryResolver binaries(RunfilesRoots(options.argv0, options.workspace));
  const absl::StatusOr<std::string> supervisor = binaries.Resolve(
      options.supervisor.empty() ? kSupervisorLabel : options.supervisor, ".");
  if (!supervisor.ok()) return supervisor.status();
  const absl::Status started = EnsureSupervisor(*supervisor, *directory);
  if (!started.ok()) return started;

  absl::StatusOr<std::unique_ptr<Server>> server =
      Server::Start(directory->control_socket(),
                    {.supervisor_socket = directory->supervisor_socket(),
                     .binaries = std::move(binaries)});
  if (!server.ok()) return server.status();
  printf("serving at %s\n", directory->control_socket().c_str());
  fflush(stdout);
  pollfd come = {interrupt.poll_fd(), POLLIN, 0};
  while (interrupt.signal() == 0) {
    if (!(*server)->supervisor_is_alive()) {
      return absl::UnavailableError(
          absl::StrCat("the supervisor has died, and all that it ran with it; ",
                       directory->supervisor_log(), " may tell why"));
    }
    poll(&come, 1, kPollMilliseconds);
  }
  server->reset();
  return ShutDownSupervisor(*directory);
}

}  // namespace

int ServeCommand(const ServeCommandOptions& options) {
  const Interrupt interrupt;
  const absl::Status status = Serve(options, interrupt);
  if (status.ok()) return kExitOk;
  fprintf(stderr, "parley serve: %s\n", std::string(status.message()).c_str());
  return kExitInfrastructure;
}

}  // namespace parley::control
