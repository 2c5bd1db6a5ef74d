// A gRPC server at a unix socket: Control, grpc.health.v1, reflection and
// channelz.
//
// The health service knows "", which serves for as long as the supervisor
// lives, and every process by its resource name ("sessions/S/processes/P"),
// which serves while it is READY.
//
// Example:
//
//   absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(
//       "/run/user/1000/parley/control.sock",
//       {.supervisor_socket = …, .binaries = …});
//   … (*server)->supervisor_is_alive() …
//
// Thread safety: const members from many threads.
//
// Lifetime: the destructor cancels the calls that still run, waits for them,
// and removes the socket.
#ifndef SERVICES_CONTROL_SERVER_H_
#define SERVICES_CONTROL_SERVER_H_

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "services/control/control_service.h"
#include "services/supervisor/client.h"

namespace grpc {
class Server;
}

namespace parley::control {

class Server {
 public:
  // Requires the lock of `socket`: what is there is replaced. The socket gets
  // mode 0600. Unavailable if the supervisor cannot be reached.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const std::string& socket, ControlServiceOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  bool supervisor_is_alive() const { return alive_.load(); }

 private:
  Server(std::string socket, ControlServiceOptions options,
         supervisor::Client watcher);

  // Keeps the health service up to date, in a thread of its own.
  void WatchHealth();
  void SetHealth(const supervisor::v1::ProcessInfo& info);

  const std::string socket_;
  ControlService service_;
  supervisor::Client watcher_;  // used by WatchHealth only
  std::unique_ptr<grpc::Server> server_;
  std::atomic<bool> alive_ = true;
  std::atomic<bool> ending_ = false;
  std::thread health_;
};

}  // namespace parley::control

#endif  // SERVICES_CONTROL_SERVER_H_
