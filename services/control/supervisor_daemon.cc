#include "services/control/supervisor_daemon.h"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/spawn.h"
#include "services/agent/environment.h"
#include "services/supervisor/client.h"

namespace parley::control {
namespace {

// Every process has its own grace time; this is for a supervisor that hangs.
constexpr absl::Duration kShutdownTimeout = absl::Seconds(60);

absl::Status StartSupervisor(const std::string& binary,
                             const RuntimeDirectory& directory,
                             const ipc::UniqueFd& lock) {
  const absl::StatusOr<ipc::UniqueFd> listener =
      ListenAt(directory.supervisor_socket());
  if (!listener.ok()) return listener.status();
  // Not our stderr: what waits for us to end would wait for it as well.
  const ipc::UniqueFd log(open(directory.supervisor_log().c_str(),
                               O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                               0600));
  if (!log.ok()) {
    return ipc::PosixError(errno,
                           absl::StrCat("open ", directory.supervisor_log()));
  }
  ipc::process::SpawnOptions options;
  options.argv = {binary};
  options.env = agent::InheritableEnv();
  options.env.push_back("LISTEN_FDS=2");
  options.env.push_back("LISTEN_FDNAMES=listen:lock");
  options.pid_env = "LISTEN_PID";
  options.fds = {{0, -1},
                 {1, log.get()},
                 {2, log.get()},
                 {3, listener->get()},
                 {4, lock.get()}};
  options.new_session = true;
  return ipc::Annotate(ipc::process::Spawn(options).status(),
                       "start the supervisor");
}

}  // namespace

absl::Status EnsureSupervisor(const std::string& binary,
                              const RuntimeDirectory& directory) {
  const absl::StatusOr<ipc::UniqueFd> lock =
      TakeLock(directory.supervisor_lock());
  if (lock.ok()) {
    const absl::Status started = StartSupervisor(binary, directory, *lock);
    if (!started.ok()) return started;
  } else if (!absl::IsUnavailable(lock.status())) {
    return lock.status();
  }
  return ipc::Annotate(
      supervisor::Client::Connect(directory.supervisor_socket()).status(),
      "connect to the supervisor");
}

absl::Status ShutDownSupervisor(const RuntimeDirectory& directory) {
  absl::StatusOr<supervisor::Client> client =
      supervisor::Client::Connect(directory.supervisor_socket());
  if (!client.ok()) return client.status();
  supervisor::v1::ClientMessage request;
  request.mutable_shutdown();
  absl::Status status =
      client->Call(std::move(request), kShutdownTimeout).status();
  if (status.ok() && unlink(directory.supervisor_socket().c_str()) != 0 &&
      errno != ENOENT) {
    status = ipc::PosixError(
        errno, absl::StrCat("remove ", directory.supervisor_socket()));
  }
  return status;
}

}  // namespace parley::control
