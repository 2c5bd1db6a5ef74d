// The RPCs of ControlService that follow what the supervisor pushes.
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "services/control/control_service.h"
#include "services/control/convert.h"
#include "services/control/engine.h"
#include "services/control/grpc_status.h"
#include "services/control/supervisor_link.h"

namespace parley::control {
namespace {

namespace sup = supervisor::v1;

// How soon a stream notices that its client has gone.
constexpr absl::Duration kPollInterval = absl::Milliseconds(100);

absl::StatusOr<sup::ListResponse> ListOn(supervisor::Client& client) {
  sup::ClientMessage request;
  request.mutable_list();
  absl::StatusOr<sup::Response> response = client.Call(std::move(request));
  if (!response.ok()) return response.status();
  return response->list();
}

absl::Status SubscribeOn(supervisor::Client& client,
                         sup::SubscribeRequest subscribe) {
  sup::ClientMessage request;
  *request.mutable_subscribe() = std::move(subscribe);
  return client.Call(std::move(request)).status();
}

v1::WatchResponse SnapshotOf(const sup::ListResponse& list,
                             const std::string& session) {
  v1::WatchResponse response;
  response.set_revision(list.revision());
  v1::WatchResponse::Snapshot& snapshot = *response.mutable_snapshot();
  for (const sup::SessionInfo& info : list.sessions()) {
    if (!session.empty() && info.name() != session) continue;
    *snapshot.add_sessions() = ToSession(info);
  }
  for (const sup::ProcessInfo& info : list.processes()) {
    if (!session.empty() && info.session() != session) continue;
    *snapshot.add_processes() = ToProcessStatus(info);
  }
  return response;
}

}  // namespace

grpc::Status ControlService::Pump(
    const grpc::ServerContext& context, supervisor::Client& client,
    const std::function<bool(const sup::ServerMessage&)>& handle) const {
  while (!context.IsCancelled()) {
    absl::StatusOr<sup::ServerMessage> message = client.Next(kPollInterval);
    if (absl::IsDeadlineExceeded(message.status())) continue;
    if (!message.ok()) return ToGrpc(message.status());
    if (!handle(*message)) return grpc::Status::OK;
  }
  return grpc::Status::CANCELLED;
}

grpc::Status ControlService::RunScenario(
    grpc::ServerContext* context, const v1::RunScenarioRequest* request,
    grpc::ServerWriter<v1::RunScenarioResponse>* writer) {
  absl::StatusOr<control::Plan> plan = MakePlanOf(request->scenario());
  if (!plan.ok()) return ToGrpc(plan.status());
  absl::StatusOr<supervisor::Client> client = Connect();
  if (!client.ok()) return ToGrpc(client.status());
  ClientLink link(&*client);
  // Another server of the same supervisor counts for itself.
  const std::string session =
      absl::StrCat(plan->scenario.name(), "-", getpid(), "-", ++runs_);
  control::RunScenario(
      link, *plan,
      {.session = session,
       .cancelled = [context] { return context->IsCancelled(); }},
      [writer](const v1::RunScenarioResponse& event) { writer->Write(event); });
  return context->IsCancelled() ? grpc::Status::CANCELLED : grpc::Status::OK;
}

grpc::Status ControlService::WaitProcess(grpc::ServerContext* context,
                                         const v1::WaitProcessRequest* request,
                                         v1::ProcessStatus* response) {
  absl::StatusOr<ProcessPath> path = ParseProcessName(request->name());
  if (!path.ok()) return ToGrpc(path.status());
  if (request->state().empty()) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                        "state: is not set; name the states to wait for");
  }
  const auto is_awaited = [&](const sup::ProcessInfo& info) {
    *response = ToProcessStatus(info);
    return std::find(request->state().begin(), request->state().end(),
                     response->state()) != request->state().end();
  };
  absl::StatusOr<supervisor::Client> client = Connect();
  if (!client.ok()) return ToGrpc(client.status());
  absl::StatusOr<sup::ListResponse> list = ListOn(*client);
  if (!list.ok()) return ToGrpc(list.status());
  bool exists = false;
  for (const sup::ProcessInfo& info : list->processes()) {
    if (info.session() != path->session || info.name() != path->process) {
      continue;
    }
    exists = true;
    if (is_awaited(info)) return grpc::Status::OK;
  }
  if (!exists) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND,
                        absl::StrCat("there is no ", request->name()));
  }
  sup::SubscribeRequest subscribe;
  subscribe.set_after_revision(list->revision());
  subscribe.set_events(true);
  subscribe.set_session(path->session);
  const absl::Status subscribed = SubscribeOn(*client, std::move(subscribe));
  if (!subscribed.ok()) return ToGrpc(subscribed);
  bool is_gone = false;
  const grpc::Status status =
      Pump(*context, *client, [&](const sup::ServerMessage& message) {
        is_gone = message.event().has_session_down() &&
                  message.event().session_down().name() == path->session;
        if (is_gone) return false;
        const sup::ProcessInfo& info = message.event().process();
        return info.session() != path->session ||
               info.name() != path->process || !is_awaited(info);
      });
  if (!is_gone) return status;
  return grpc::Status(grpc::StatusCode::NOT_FOUND,
                      absl::StrCat(request->name(), " is gone"));
}

grpc::Status ControlService::Watch(
    grpc::ServerContext* context, const v1::WatchRequest* request,
    grpc::ServerWriter<v1::WatchResponse>* writer) {
  std::string session;
  if (!request->session().empty()) {
    absl::StatusOr<std::string> parsed = ParseSessionName(request->session());
    if (!parsed.ok()) return ToGrpc(parsed.status());
    session = *std::move(parsed);
  }
  absl::StatusOr<supervisor::Client> client = Connect();
  if (!client.ok()) return ToGrpc(client.status());
  sup::SubscribeRequest subscribe;
  subscribe.set_events(true);
  subscribe.set_session(session);
  subscribe.set_after_revision(request->after_revision());
  if (!request->has_after_revision()) {
    absl::StatusOr<sup::ListResponse> list = ListOn(*client);
    if (!list.ok()) return ToGrpc(list.status());
    subscribe.set_after_revision(list->revision());
    if (!writer->Write(SnapshotOf(*list, session))) {
      return grpc::Status::CANCELLED;
    }
  }
  const absl::Status subscribed = SubscribeOn(*client, std::move(subscribe));
  if (!subscribed.ok()) return ToGrpc(subscribed);
  return Pump(*context, *client, [&](const sup::ServerMessage& message) {
    return !message.has_event() ||
           writer->Write(ToWatchResponse(message.event()));
  });
}

grpc::Status ControlService::TailLogs(
    grpc::ServerContext* context, const v1::TailLogsRequest* request,
    grpc::ServerWriter<v1::TailLogsResponse>* writer) {
  sup::SubscribeRequest subscribe;
  subscribe.set_logs(true);
  subscribe.set_log_cursor(request->cursor());
  if (!request->process().empty()) {
    absl::StatusOr<ProcessPath> path = ParseProcessName(request->process());
    if (!path.ok()) return ToGrpc(path.status());
    subscribe.set_session(path->session);
    subscribe.set_process(path->process);
  } else if (!request->session().empty()) {
    absl::StatusOr<std::string> session = ParseSessionName(request->session());
    if (!session.ok()) return ToGrpc(session.status());
    subscribe.set_session(*session);
  }
  absl::StatusOr<supervisor::Client> client = Connect();
  if (!client.ok()) return ToGrpc(client.status());
  const absl::Status subscribed = SubscribeOn(*client, std::move(subscribe));
  if (!subscribed.ok()) return ToGrpc(subscribed);
  const auto write = [&](const sup::ServerMessage& message) {
    if (!message.has_log()) return true;
    const sup::LogChunk& log = message.log();
    v1::TailLogsResponse response;
    response.set_process(ProcessName(log.session(), log.process()));
    response.set_stream(ToStream(log.stream()));
    response.set_cursor(log.cursor());
    response.set_data(log.data());
    response.set_dropped(log.dropped());
    return writer->Write(response);
  };
  if (request->follow()) return Pump(*context, *client, write);
  // What is kept is pushed before the next answer.
  absl::StatusOr<sup::ListResponse> list = ListOn(*client);
  if (!list.ok()) return ToGrpc(list.status());
  while (true) {
    absl::StatusOr<sup::ServerMessage> message =
        client->Next(absl::ZeroDuration());
    if (absl::IsDeadlineExceeded(message.status())) return grpc::Status::OK;
    if (!message.ok()) return ToGrpc(message.status());
    if (!write(*message)) return grpc::Status::CANCELLED;
  }
}

}  // namespace parley::control
