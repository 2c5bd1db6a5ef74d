// Client speaks to a supervisor over one connection.
//
// Example:
//
//   absl::StatusOr<Client> client = Client::Launch({.binary = path});
//   ClientMessage up;
//   *up.mutable_up()->mutable_session() = spec;
//   up.mutable_up()->set_bound_to_connection(true);
//   absl::StatusOr<Response> response = client->Call(std::move(up));
//
// Thread safety: none; one thread at a time. Several threads take a Client
// each.
//
// Lifetime: closing the connection takes down the sessions bound to it, and a
// supervisor that was launched ends with its client.
#ifndef SERVICES_SUPERVISOR_CLIENT_H_
#define SERVICES_SUPERVISOR_CLIENT_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "ipc/process/process.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {

struct LaunchOptions {
  std::string binary;  // of //services/supervisor
};

class Client {
 public:
  // Starts a supervisor of one's own, which ends, with all that it runs, when
  // this client is closed or its process dies.
  static absl::StatusOr<Client> Launch(const LaunchOptions& options);
  // Over a connected unix stream socket.
  static absl::StatusOr<Client> FromFd(ipc::UniqueFd fd);
  // To a supervisor that listens at `path`. Unavailable if none does;
  // PermissionDenied if it belongs to another user.
  static absl::StatusOr<Client> Connect(const std::string& path);

  // Sends a request, whose id is filled in, and waits for its answer. An answer
  // that is an error is returned as that status. What is pushed meanwhile is
  // kept for Next. Unavailable: the supervisor has died.
  absl::StatusOr<v1::Response> Call(
      v1::ClientMessage request,
      absl::Duration timeout = absl::InfiniteDuration());

  // The next event or piece of log. DeadlineExceeded if none comes in time;
  // Unavailable once the supervisor has died.
  absl::StatusOr<v1::ServerMessage> Next(
      absl::Duration timeout = absl::InfiniteDuration());

  // Polls readable when Next would have something to read from the connection.
  // What Call kept back does not show: drain Next(absl::ZeroDuration()) first.
  int poll_fd() const { return connection_.poll_fd(); }

  // The supervisor's process id if it was launched, else 0.
  pid_t supervisor_pid() const;

 private:
  explicit Client(ipc::pipe::Connection connection)
      : connection_(std::move(connection)) {}

  absl::StatusOr<v1::ServerMessage> Read(absl::Duration timeout);

  ipc::pipe::Connection connection_;
  std::optional<ipc::process::Process> supervisor_;
  std::deque<v1::ServerMessage> pushed_;
  uint64_t last_id_ = 0;
};

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_CLIENT_H_
