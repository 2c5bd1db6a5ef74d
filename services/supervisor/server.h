// Server answers clients of the supervisor: it turns the messages of
// supervisor.proto into calls of Supervisor, and pushes what clients have
// subscribed to.
//
// Each subscriber has a place of its own in the history and in every log, so a
// slow one delays nobody and costs a bounded queue; what the logs drop
// meanwhile is told to it as a count.
//
// Thread safety: none; lives on the event loop.
#ifndef SERVICES_SUPERVISOR_SERVER_H_
#define SERVICES_SUPERVISOR_SERVER_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "ipc/base/unique_fd.h"
#include "services/supervisor/event_loop.h"
#include "services/supervisor/link.h"
#include "services/supervisor/log_buffer.h"
#include "services/supervisor/managed_process.h"
#include "services/supervisor/session.h"
#include "services/supervisor/supervisor.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {

class Server : private Supervisor::Listener {
 public:
  // `loop` and `supervisor` outlive it. `shut_down` is called when a client has
  // asked for it and all is stopped.
  Server(EventLoop& loop, Supervisor& supervisor,
         std::function<void()> shut_down);
  ~Server() override;

  // Accepts clients of this user on a listening unix socket.
  void Listen(ipc::UniqueFd listener);
  // Serves one connected client; calls `on_close` when it has closed.
  void Serve(ipc::UniqueFd connection, std::function<void()> on_close);

 private:
  // Session, process, and Session::up_revision: what comes later under the same
  // names has a log of its own.
  using LogKey = std::tuple<std::string, std::string, uint64_t>;

  struct LogPlace {
    std::shared_ptr<LogBuffer> log;
    uint64_t cursor;
  };
  // Events are gone through in order, also if only logs are wanted, since they
  // say when to push which log: not before its session is up, all that a
  // process printed before its end, and then, when the session is down, no
  // more.
  struct Subscription {
    v1::SubscribeRequest request;
    uint64_t revision;  // of the last event pushed or passed over
    std::map<LogKey, LogPlace> logs;
  };
  struct Client {
    std::unique_ptr<Link> link;
    std::optional<Subscription> subscription;
    // Name -> which of that name: another client may have taken it down, and
    // begun another.
    std::map<std::string, uint64_t> bound_sessions;
    std::function<void()> on_close;
  };
  using ClientRef = std::weak_ptr<Client>;

  void Accept();
  void PauseAccepting();
  void ResumeAccepting();
  void OnEvent() override;
  void OnOutput(const ManagedProcess& process) override;
  void OnMessage(const std::shared_ptr<Client>& client,
                 const v1::ClientMessage& message);
  void OnClose(const std::shared_ptr<Client>& client);
  absl::Status Subscribe(Client& client, const v1::SubscribeRequest& request);
  void Respond(const ClientRef& ref, uint64_t id, const absl::Status& status,
               v1::Response response = {});
  void PumpAllSoon();
  void Pump(Client& client);
  bool PushNextEvent(Client& client);
  bool PushOutputBefore(Client& client, const v1::Event& event);
  bool PushSomeOutput(Client& client, const LogKey& key, LogPlace& place);
  void FollowLog(Subscription& subscription, const Session& session,
                 const ManagedProcess& process, uint64_t cursor);
  void ForgetLogs(Subscription& subscription);

  EventLoop& loop_;
  Supervisor& supervisor_;
  std::function<void()> shut_down_;
  ipc::UniqueFd listener_;
  EventLoop::WatchId listener_watch_ = 0;
  // Set while the listener is not watched.
  std::optional<EventLoop::TimerId> accept_again_;
  std::set<std::shared_ptr<Client>> clients_;
  // Expires with the server, for what was posted before.
  std::shared_ptr<bool> pump_posted_ = std::make_shared<bool>(false);
};

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_SERVER_H_
