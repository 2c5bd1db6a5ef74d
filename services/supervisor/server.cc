#include "services/supervisor/server.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "services/supervisor/proto_time.h"
#include "services/supervisor/session.h"

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
  for (const auto& [session_name, session] : supervisor_.sessions()) {
    for (const auto& [name, process] : session->processes()) {
      // A log that is shorter is not the one that the cursor was of.
      const uint64_t cursor = request.log_cursor();
      FollowLog(*client.subscription, *session, *process,
                cursor <= process->log()->end() ? cursor : 0);
    }
  }
  return absl::OkStatus();
}

void Server::OnEvent() {
  // A log is followed from now on, while its process is sure to exist.
  const v1::Event& event =
      supervisor_.history().At(supervisor_.history().revision());
  if (event.process().state() == v1::PENDING) {
    const Session& session =
        *supervisor_.sessions().at(event.process().session());
    const ManagedProcess& process =
        *session.processes().at(event.process().name());
    for (const auto& client : clients_) {
      if (!client->subscription.has_value()) continue;
      FollowLog(*client->subscription, session, process, /*cursor=*/0);
    }
  }
  PumpAllSoon();
}

void Server::OnOutput(const ManagedProcess&) { PumpAllSoon(); }

void Server::FollowLog(Subscription& subscription, const Session& session,
                       const ManagedProcess& process, uint64_t cursor) {
  const v1::SubscribeRequest& request = subscription.request;
  if (!request.logs() ||
      (!request.session().empty() && request.session() != session.name()) ||
      (!request.process().empty() && request.process() != process.name())) {
    return;
  }
  // No effect if it is only another generation of the process.
  subscription.logs.try_emplace(
      {session.name(), process.name(), session.up_revision()},
      LogPlace{process.log(), cursor});
}

// Those that are read to the end, of sessions that are gone.
void Server::ForgetLogs(Subscription& subscription) {
  std::erase_if(subscription.logs, [this](const auto& entry) {
    const auto& [session, process, up_revision] = entry.first;
    const auto it = supervisor_.sessions().find(session);
    return (it == supervisor_.sessions().end() ||
            it->second->up_revision() != up_revision) &&
           entry.second.cursor >= entry.second.log->end();
  });
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
      if (std::get<uint64_t>(key) > client.subscription->revision) continue;
      pushed |= PushSomeOutput(client, key, place);
    }
    client.link->Flush();
  }
  client.link->Flush();
}

// Whether it made progress.
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
  if (PushOutputBefore(client, event)) return true;  // the event comes later
  ++subscription.revision;
  const std::string& wanted = subscription.request.session();
  if (subscription.request.events() &&
      (wanted.empty() || wanted == *SessionOf(event))) {
    v1::ServerMessage message;
    *message.mutable_event() = event;
    client.link->Send(message);
  }
  if (event.has_session_down()) ForgetLogs(subscription);
  return true;
}

// Pushes a piece of what a process printed before the end that this event says
// has come, if it was not pushed yet; whether there was any.
bool Server::PushOutputBefore(Client& client, const v1::Event& event) {
  if (event.process().state() != v1::EXITED) return false;
  const LogKey last = {event.process().session(), event.process().name(),
                       event.revision()};
  auto& logs = client.subscription->logs;
  // The session of this event is the last one that was up before it.
  const auto after = logs.upper_bound(last);
  if (after == logs.begin()) return false;
  auto& [key, place] = *std::prev(after);
  return std::get<0>(key) == std::get<0>(last) &&
         std::get<1>(key) == std::get<1>(last) &&
         place.cursor < event.process().log_end() &&
         PushSomeOutput(client, key, place);
}

bool Server::PushSomeOutput(Client& client, const LogKey& key,
                            LogPlace& place) {
  const std::optional<LogBuffer::Piece> piece =
      place.log->Read(place.cursor, kLogPiece);
  if (!piece.has_value()) return false;
  v1::ServerMessage message;
  v1::LogChunk& chunk = *message.mutable_log();
  chunk.set_session(std::get<0>(key));
  chunk.set_process(std::get<1>(key));
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
