#include "services/supervisor/server.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "services/supervisor/session.h"
#include "services/supervisor/timestamp.h"

namespace parley::supervisor {
namespace {

// Of one push: small enough that processes take turns, large enough that the
// message around it costs little.
constexpr size_t kLogPiece = 32 * 1024;

// Until there may be descriptors again for another client. Also when one of
// ours closes, but not only clients take them, nor only this process.
constexpr absl::Duration kAcceptPause = absl::Milliseconds(100);

const std::string* SessionOf(const v1::Event& event) {
  switch (event.change_case()) {
    case v1::Event::kProcess:
      return &event.process().session();
    case v1::Event::kSessionUp:
      return &event.session_up().name();
    case v1::Event::kSessionDown:
      return &event.session_down().name();
    case v1::Event::CHANGE_NOT_SET:
      break;
  }
  return nullptr;
}

bool IsOfOurUser(int socket) {
  ucred peer;
  socklen_t size = sizeof(peer);
  return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         (peer.uid == geteuid() || peer.uid == 0);
}

}  // namespace

Server::Server(EventLoop& loop, Supervisor& supervisor,
               std::function<void()> shut_down)
    : loop_(loop), supervisor_(supervisor), shut_down_(std::move(shut_down)) {
  supervisor_.set_listener(this);
}

Server::~Server() {
  supervisor_.set_listener(nullptr);
  if (accept_again_.has_value()) loop_.Cancel(*accept_again_);
  if (listener_watch_ != 0) loop_.Unwatch(listener_watch_);
}

void Server::Listen(ipc::UniqueFd listener) {
  listener_ = std::move(listener);
  listener_watch_ =
      loop_.Watch(listener_.get(), EPOLLIN, [this](uint32_t) { Accept(); });
}

void Server::Accept() {
  ipc::UniqueFd connection(
      accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (connection.ok()) {
    if (!IsOfOurUser(connection.get())) return;
    Serve(std::move(connection), [] {});
  } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
             errno == ENOMEM) {
    PauseAccepting();
  }
  // Else the connection has gone, or comes again with the event.
}

// Out of descriptors or memory: the connection stays in the queue, and the
// listener readable. To be told so all the time would take the whole processor,
// and free none.
void Server::PauseAccepting() {
  loop_.Modify(listener_watch_, 0);
  accept_again_ = loop_.RunAfter(kAcceptPause, [this] { ResumeAccepting(); });
}

void Server::ResumeAccepting() {
  if (!accept_again_.has_value()) return;
  loop_.Cancel(*accept_again_);
  accept_again_.reset();
  loop_.Modify(listener_watch_, EPOLLIN);
}

void Server::Serve(ipc::UniqueFd connection, std::function<void()> on_close) {
  auto client = std::make_shared<Client>();
  client->on_close = std::move(on_close);
  const ClientRef ref = client;
  client->link = std::make_unique<Link>(
      loop_, std::move(connection),
      Link::Callbacks{
          .on_message =
              [this, ref](const v1::ClientMessage& message) {
                if (auto c = ref.lock()) OnMessage(c, message);
              },
          .on_writable =
              [this, ref] {
                if (auto c = ref.lock()) Pump(*c);
              },
          .on_close =
              [this, ref](const absl::Status&) {
                // The link is still on the stack.
                loop_.Post([this, alive = ClientRef(ref)] {
                  if (auto c = alive.lock()) OnClose(c);
                });
              },
      });
  clients_.insert(std::move(client));
}

void Server::OnClose(const std::shared_ptr<Client>& client) {
  for (const auto& [name, up_revision] : client->bound_sessions) {
    const auto it = supervisor_.sessions().find(name);
    if (it != supervisor_.sessions().end() &&
        it->second->up_revision() == up_revision) {
      supervisor_.Down(name, [](const absl::Status&) {});
    }
  }
  const auto on_close = client->on_close;
  clients_.erase(client);
  ResumeAccepting();
  on_close();
}

void Server::Respond(const ClientRef& ref, uint64_t id,
                     const absl::Status& status, v1::Response response) {
  const std::shared_ptr<Client> client = ref.lock();
  if (client == nullptr) return;
  response.set_id(id);
  response.set_code(static_cast<int>(status.code()));
  response.set_error(std::string(status.message()));
  v1::ServerMessage message;
  *message.mutable_response() = std::move(response);
  client->link->Send(message);
  client->link->Flush();
}

void Server::OnMessage(const std::shared_ptr<Client>& client,
                       const v1::ClientMessage& message) {
  const ClientRef ref = client;
  const uint64_t id = message.id();
  const auto respond = [this, ref, id](const absl::Status& status) {
    Respond(ref, id, status);
  };
  const auto respond_with_process =
      [this, ref, id](const absl::StatusOr<v1::ProcessInfo>& info) {
        v1::Response response;
        if (info.ok()) *response.mutable_process() = *info;
        Respond(ref, id, info.status(), std::move(response));
      };
  switch (message.request_case()) {
    case v1::ClientMessage::kUp: {
      const v1::SessionSpec& session = message.up().session();
      const absl::Status status = supervisor_.Up(session);
      if (status.ok() && message.up().bound_to_connection()) {
        client->bound_sessions[session.name()] =
            supervisor_.sessions().at(session.name())->up_revision();
      }
      respond(status);
      break;
    }
    case v1::ClientMessage::kDown:
      client->bound_sessions.erase(message.down().session());
      supervisor_.Down(message.down().session(), respond);
      break;
    case v1::ClientMessage::kStartProcess:
      respond_with_process(
          supervisor_.StartProcess(message.start_process().session(),
                                   message.start_process().process()));
      break;
    case v1::ClientMessage::kStopProcess: {
      const v1::StopProcessRequest& request = message.stop_process();
      supervisor_.StopProcess(
          request.session(), request.process(),
          [request](const ManagedProcess& process) {
            return request.has_grace() ? FromProto(request.grace())
                                       : process.default_grace();
          },
          respond_with_process);
      break;
    }
    case v1::ClientMessage::kList: {
      v1::Response response;
      *response.mutable_list() = supervisor_.List();
      Respond(ref, id, absl::OkStatus(), std::move(response));
      break;
    }
    case v1::ClientMessage::kSubscribe:
      respond(Subscribe(*client, message.subscribe()));
      PumpAllSoon();
      break;
    case v1::ClientMessage::kShutdown:
      supervisor_.Shutdown([this, respond] {
        respond(absl::OkStatus());
        shut_down_();
      });
      break;
    case v1::ClientMessage::REQUEST_NOT_SET:
      respond(absl::InvalidArgumentError(
          "the request is empty, or newer than this supervisor"));
  }
}

absl::Status Server::Subscribe(Client& client,
                               const v1::SubscribeRequest& request) {
  const History& history = supervisor_.history();
  if (request.events() && !history.Reaches(request.after_revision())) {
    return absl::OutOfRangeError(absl::StrCat(
        "events after revision ", request.after_revision(),
        " are not (or no longer) known; the last is ", history.revision(),
        ": list again and subscribe from there"));
  }
  client.subscription =
      Subscription{.request = request,
                   .revision = request.events() ? request.after_revision()
                                                : history.revision(),
                   .logs = {}};
  FollowNewLogs(*client.subscription);
  return absl::OkStatus();
}

void Server::OnEvent() {
  // Logs are followed now, while their processes are sure to exist.
  for (const auto& client : clients_) {
    if (client->subscription.has_value()) FollowNewLogs(*client->subscription);
  }
  PumpAllSoon();
}

void Server::OnOutput(const ManagedProcess&) { PumpAllSoon(); }

void Server::FollowNewLogs(Subscription& subscription) {
  const v1::SubscribeRequest& request = subscription.request;
  if (!request.logs()) return;
  for (const auto& [session_name, session] : supervisor_.sessions()) {
    if (!request.session().empty() && request.session() != session_name) {
      continue;
    }
    for (const auto& [name, process] : session->processes()) {
      if (!request.process().empty() && request.process() != name) continue;
      LogPlace& place = subscription.logs[{session_name, name}];
      // A session of the same name may have come after one that is gone.
      if (place.log != process->log()) {
        place = {process->log(), request.log_cursor()};
      }
    }
  }
}

void Server::PumpAllSoon() {
  if (*pump_posted_) return;
  *pump_posted_ = true;
  loop_.Post([this, alive = std::weak_ptr<bool>(pump_posted_)] {
    if (alive.expired()) return;
    *pump_posted_ = false;
    for (const auto& client : clients_) Pump(*client);
  });
}

void Server::Pump(Client& client) {
  bool pushed = client.subscription.has_value();
  while (pushed && !client.link->is_slow()) {
    pushed = PushNextEvent(client);
    for (auto& [key, place] : client.subscription->logs) {
      if (client.link->is_slow()) break;
      pushed |= PushSomeOutput(client, key, place);
    }
    client.link->Flush();
  }
  client.link->Flush();
}

// Whether it made progress. Before a process' exit, all that it printed.
bool Server::PushNextEvent(Client& client) {
  Subscription& subscription = *client.subscription;
  const History& history = supervisor_.history();
  if (subscription.revision == history.revision()) return false;
  if (!history.Reaches(subscription.revision)) {
    // So slow that the history has passed it by: it learns of the gap from the
    // revisions, and lists anew.
    subscription.revision = history.revision() - 1;
  }
  const v1::Event& event = history.At(subscription.revision + 1);
  const std::string& wanted = subscription.request.session();
  const bool is_wanted = subscription.request.events() &&
                         (wanted.empty() || wanted == *SessionOf(event));
  if (is_wanted && event.process().state() == v1::EXITED) {
    const ProcessKey key = {event.process().session(), event.process().name()};
    const auto place = subscription.logs.find(key);
    if (place != subscription.logs.end() &&
        PushSomeOutput(client, key, place->second)) {
      return true;  // and the event in a later round
    }
  }
  ++subscription.revision;
  if (is_wanted) {
    v1::ServerMessage message;
    *message.mutable_event() = event;
    client.link->Send(message);
  }
  if (event.has_session_down()) {
    // Its logs are followed to their end, then let go.
    const std::string& gone = event.session_down().name();
    for (auto it = subscription.logs.begin(); it != subscription.logs.end();) {
      const bool is_gone = it->first.first == gone &&
                           !supervisor_.sessions().contains(gone) &&
                           it->second.cursor >= it->second.log->end();
      it = is_gone ? subscription.logs.erase(it) : std::next(it);
    }
  }
  return true;
}

bool Server::PushSomeOutput(Client& client, const ProcessKey& key,
                            LogPlace& place) {
  const std::optional<LogBuffer::Piece> piece =
      place.log->Read(place.cursor, kLogPiece);
  if (!piece.has_value()) return false;
  v1::ServerMessage message;
  v1::LogChunk& chunk = *message.mutable_log();
  chunk.set_session(key.first);
  chunk.set_process(key.second);
  chunk.set_stream(piece->stream == LogBuffer::Stream::kStdout ? v1::STDOUT
                                                               : v1::STDERR);
  chunk.set_cursor(piece->cursor);
  chunk.set_dropped(piece->cursor - place.cursor);
  chunk.set_data(piece->data.data(), piece->data.size());
  place.cursor = piece->cursor + piece->data.size();
  client.link->Send(message);
  return true;
}

}  // namespace parley::supervisor
