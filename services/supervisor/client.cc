#include "services/supervisor/client.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ipc/base/posix_error.h"
#include "ipc/process/spawn.h"
#include "services/agent/environment.h"

namespace parley::supervisor {
namespace {

absl::Status SupervisorGone(const absl::Status& status) {
  if (absl::IsOutOfRange(status) || absl::IsDataLoss(status) ||
      absl::IsUnavailable(status)) {
    return absl::UnavailableError(
        absl::StrCat("the supervisor has died, and with it all that it ran: ",
                     status.message()));
  }
  return status;
}

}  // namespace

absl::StatusOr<Client> Client::Launch(const LaunchOptions& options) {
  auto pair = ipc::pipe::Connection::CreatePair(/*duplex=*/true);
  if (!pair.ok()) return pair.status();
  ipc::process::SpawnOptions spawn;
  spawn.argv = {options.binary};
  spawn.env = agent::InheritableEnv();
  spawn.env.push_back("LISTEN_FDS=1");
  spawn.env.push_back("LISTEN_FDNAMES=control");
  spawn.pid_env = "LISTEN_PID";
  spawn.fds[3] = pair->second.fd();
  // A signal meant for the client, such as Ctrl-C, is the client's to handle.
  spawn.new_session = true;
  absl::StatusOr<ipc::process::Process> process = ipc::process::Spawn(spawn);
  if (!process.ok()) {
    return ipc::Annotate(process.status(), "starting the supervisor");
  }
  Client client(std::move(pair->first));
  client.supervisor_ = *std::move(process);
  return client;
}

absl::StatusOr<Client> Client::FromFd(ipc::UniqueFd fd) {
  auto connection = ipc::pipe::Connection::FromFd(std::move(fd));
  if (!connection.ok()) return connection.status();
  return Client(*std::move(connection));
}

absl::StatusOr<Client> Client::Connect(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the socket's path ", path, " is longer than the ",
                     sizeof(address.sun_path) - 1,
                     " bytes that unix sockets allow: choose "
                     "a shorter directory"));
  }
  memcpy(address.sun_path, path.data(), path.size());
  ipc::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.ok()) return ipc::PosixError(errno, "socket");
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address),
              sizeof(address)) != 0) {
    if (errno == ENOENT || errno == ECONNREFUSED) {
      return absl::UnavailableError(
          absl::StrCat("no supervisor listens at ", path,
                       ": start one with `parley serve`"));
    }
    return ipc::PosixError(errno, absl::StrCat("connecting to ", path));
  }
  ucred peer;
  socklen_t size = sizeof(peer);
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return ipc::PosixError(errno, absl::StrCat("SO_PEERCRED of ", path));
  }
  if (peer.uid != geteuid() && peer.uid != 0) {
    return absl::PermissionDeniedError(absl::StrCat(
        "the supervisor at ", path, " belongs to user ", peer.uid));
  }
  return FromFd(std::move(fd));
}

absl::StatusOr<v1::Response> Client::Call(v1::ClientMessage request,
                                          absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  request.set_id(++last_id_);
  if (absl::Status s = connection_.Send(request.SerializeAsString(), timeout);
      !s.ok()) {
    return SupervisorGone(s);
  }
  while (true) {
    absl::StatusOr<v1::ServerMessage> message = Read(deadline - absl::Now());
    if (!message.ok()) return message.status();
    if (!message->has_response()) {
      pushed_.push_back(*std::move(message));
      continue;
    }
    // The answer to a call that was given up when its time was over.
    if (message->response().id() != last_id_) continue;
    const v1::Response& response = message->response();
    if (response.code() != 0) {
      return absl::Status(static_cast<absl::StatusCode>(response.code()),
                          response.error());
    }
    return response;
  }
}

absl::StatusOr<v1::ServerMessage> Client::Next(absl::Duration timeout) {
  if (!pushed_.empty()) {
    v1::ServerMessage message = std::move(pushed_.front());
    pushed_.pop_front();
    return message;
  }
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    absl::StatusOr<v1::ServerMessage> message = Read(deadline - absl::Now());
    if (!message.ok() || !message->has_response()) return message;
  }
}

absl::StatusOr<v1::ServerMessage> Client::Read(absl::Duration timeout) {
  absl::StatusOr<std::string> frame = connection_.Receive(timeout);
  if (!frame.ok()) return SupervisorGone(frame.status());
  v1::ServerMessage message;
  if (!message.ParseFromString(*frame)) {
    return absl::DataLossError(
        "the supervisor sent what is not a ServerMessage of supervisor.proto: "
        "is it of another version?");
  }
  return message;
}

pid_t Client::supervisor_pid() const {
  return supervisor_.has_value() ? supervisor_->pid() : 0;
}

}  // namespace parley::supervisor
