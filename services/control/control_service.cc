#include "services/control/control_service.h"

#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/control/convert.h"
#include "services/control/grpc_status.h"
#include "services/control/scenario_parser.h"

namespace parley::control {
namespace {

namespace sup = supervisor::v1;

constexpr int kDefaultPageSize = 1000;

absl::Duration TimeLeft(const grpc::ServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) {
    return absl::InfiniteDuration();
  }
  return absl::FromChrono(deadline) - absl::Now();
}

// A page of `items`, by their names. The token is the last name of a page.
template <typename Item, typename Add>
absl::Status Paginate(std::vector<Item> items, int page_size,
                      const std::string& page_token, const Add& add,
                      std::string* next_page_token) {
  if (page_size < 0) {
    return absl::InvalidArgumentError(
        "page_size is negative; leave it out for the default");
  }
  if (page_size == 0) page_size = kDefaultPageSize;
  std::sort(items.begin(), items.end(),
            [](const Item& a, const Item& b) { return a.name() < b.name(); });
  auto item = std::find_if(items.begin(), items.end(), [&](const Item& i) {
    return page_token.empty() || i.name() > page_token;
  });
  std::string last;
  for (; item != items.end() && page_size > 0; ++item, --page_size) {
    last = item->name();
    add(std::move(*item));
  }
  if (item != items.end()) *next_page_token = last;
  return absl::OkStatus();
}

// "sessions/S", or "" for all, to S.
absl::StatusOr<std::string> SessionFilter(const std::string& name) {
  if (name.empty()) return std::string();
  return ParseSessionName(name);
}

}  // namespace

absl::StatusOr<supervisor::Client> ControlService::Connect() const {
  return supervisor::Client::Connect(options_.supervisor_socket);
}

absl::StatusOr<sup::Response> ControlService::Call(
    const grpc::ServerContext& context, sup::ClientMessage request) const {
  absl::StatusOr<supervisor::Client> client = Connect();
  if (!client.ok()) return client.status();
  return client->Call(std::move(request), TimeLeft(context));
}

absl::StatusOr<sup::ListResponse> ControlService::List(
    const grpc::ServerContext& context) const {
  sup::ClientMessage request;
  request.mutable_list();
  absl::StatusOr<sup::Response> response = Call(context, std::move(request));
  if (!response.ok()) return response.status();
  return response->list();
}

absl::StatusOr<control::Plan> ControlService::MakePlanOf(
    const v1::ScenarioSource& source) const {
  ParsedScenario parsed;
  if (source.source_case() == v1::ScenarioSource::kText) {
    absl::StatusOr<ParsedScenario> from_text =
        ParseScenario(source.text(), source.file_name());
    if (!from_text.ok()) return from_text.status();
    parsed = *std::move(from_text);
  } else {
    parsed.scenario = source.scenario();
    parsed.file_name = source.file_name();
  }
  return MakePlan(parsed, {.binaries = &options_.binaries,
                           .environment = BaseEnvironment()});
}

grpc::Status ControlService::Plan(grpc::ServerContext*,
                                  const v1::PlanRequest* request,
                                  v1::PlanResponse* response) {
  absl::StatusOr<control::Plan> plan = MakePlanOf(request->scenario());
  if (!plan.ok()) return ToGrpc(plan.status());
  *response = plan->ToProto();
  return grpc::Status::OK;
}

grpc::Status ControlService::Up(grpc::ServerContext* context,
                                const v1::UpRequest* request,
                                v1::Session* response) {
  absl::StatusOr<control::Plan> plan = MakePlanOf(request->scenario());
  if (!plan.ok()) return ToGrpc(plan.status());
  sup::ClientMessage up;
  sup::SessionSpec& session = *up.mutable_up()->mutable_session();
  session = plan->session;
  if (!request->session().empty()) {
    absl::StatusOr<std::string> name = ParseSessionName(request->session());
    if (!name.ok()) return ToGrpc(name.status());
    session.set_name(*name);
  }
  response->set_name(SessionName(session.name()));
  return ToGrpc(Call(*context, std::move(up)).status());
}

grpc::Status ControlService::Down(grpc::ServerContext* context,
                                  const v1::DownRequest* request,
                                  v1::DownResponse*) {
  absl::StatusOr<std::string> session = ParseSessionName(request->session());
  if (!session.ok()) return ToGrpc(session.status());
  sup::ClientMessage down;
  down.mutable_down()->set_session(*session);
  return ToGrpc(Call(*context, std::move(down)).status());
}

grpc::Status ControlService::ListSessions(
    grpc::ServerContext* context, const v1::ListSessionsRequest* request,
    v1::ListSessionsResponse* response) {
  absl::StatusOr<sup::ListResponse> list = List(*context);
  if (!list.ok()) return ToGrpc(list.status());
  response->set_revision(list->revision());
  std::vector<v1::Session> sessions;
  for (const sup::SessionInfo& info : list->sessions()) {
    sessions.push_back(ToSession(info));
  }
  return ToGrpc(Paginate(
      std::move(sessions), request->page_size(), request->page_token(),
      [&](v1::Session s) { *response->add_sessions() = std::move(s); },
      response->mutable_next_page_token()));
}

grpc::Status ControlService::ListProcesses(
    grpc::ServerContext* context, const v1::ListProcessesRequest* request,
    v1::ListProcessesResponse* response) {
  absl::StatusOr<std::string> session = SessionFilter(request->session());
  if (!session.ok()) return ToGrpc(session.status());
  absl::StatusOr<sup::ListResponse> list = List(*context);
  if (!list.ok()) return ToGrpc(list.status());
  response->set_revision(list->revision());
  std::vector<v1::ProcessStatus> processes;
  for (const sup::ProcessInfo& info : list->processes()) {
    if (!session->empty() && info.session() != *session) continue;
    processes.push_back(ToProcessStatus(info));
  }
  return ToGrpc(Paginate(
      std::move(processes), request->page_size(), request->page_token(),
      [&](v1::ProcessStatus p) { *response->add_processes() = std::move(p); },
      response->mutable_next_page_token()));
}

grpc::Status ControlService::GetProcess(grpc::ServerContext* context,
                                        const v1::GetProcessRequest* request,
                                        v1::ProcessStatus* response) {
  absl::StatusOr<ProcessPath> path = ParseProcessName(request->name());
  if (!path.ok()) return ToGrpc(path.status());
  absl::StatusOr<sup::ListResponse> list = List(*context);
  if (!list.ok()) return ToGrpc(list.status());
  for (const sup::ProcessInfo& info : list->processes()) {
    if (info.session() != path->session || info.name() != path->process) {
      continue;
    }
    *response = ToProcessStatus(info);
    return grpc::Status::OK;
  }
  return grpc::Status(grpc::StatusCode::NOT_FOUND,
                      absl::StrCat("there is no ", request->name(),
                                   "; ListProcesses names those there are"));
}

absl::StatusOr<sup::ProcessSpec> ControlService::SpecOf(
    const v1::Process& process, const std::string& session,
    const sup::ListResponse& list) const {
  // As a scenario of this process alone, with the channels that are there, it
  // obeys the same rules as in a file.
  ParsedScenario parsed;
  parsed.scenario.set_name(session);
  *parsed.scenario.add_process() = process;
  PlanOptions options = {.binaries = &options_.binaries,
                         .environment = BaseEnvironment()};
  for (const sup::ChannelInfo& channel : list.channels()) {
    if (channel.session() != session) continue;
    *parsed.scenario.add_channel() = ToChannel(channel.spec());
  }
  for (const sup::ProcessInfo& other : list.processes()) {
    if (other.session() != session) continue;
    options.existing_processes.push_back(other.name());
  }
  absl::StatusOr<control::Plan> plan = MakePlan(parsed, options);
  if (!plan.ok()) return plan.status();
  if (plan->session.processes_size() != 1) {
    return absl::InvalidArgumentError(
        "process.replicas: StartProcess starts one process; call it for each");
  }
  return plan->session.processes(0);
}

grpc::Status ControlService::StartProcess(
    grpc::ServerContext* context, const v1::StartProcessRequest* request,
    v1::ProcessStatus* response) {
  absl::StatusOr<std::string> session = ParseSessionName(request->session());
  if (!session.ok()) return ToGrpc(session.status());
  absl::StatusOr<sup::ListResponse> list = List(*context);
  if (!list.ok()) return ToGrpc(list.status());
  absl::StatusOr<sup::ProcessSpec> spec =
      SpecOf(request->process(), *session, *list);
  if (!spec.ok()) return ToGrpc(spec.status());
  sup::ClientMessage start;
  start.mutable_start_process()->set_session(*session);
  *start.mutable_start_process()->mutable_process() = *std::move(spec);
  absl::StatusOr<sup::Response> answer = Call(*context, std::move(start));
  if (!answer.ok()) return ToGrpc(answer.status());
  *response = ToProcessStatus(answer->process());
  return grpc::Status::OK;
}

grpc::Status ControlService::StopProcess(grpc::ServerContext* context,
                                         const v1::StopProcessRequest* request,
                                         v1::ProcessStatus* response) {
  absl::StatusOr<ProcessPath> path = ParseProcessName(request->name());
  if (!path.ok()) return ToGrpc(path.status());
  sup::ClientMessage stop;
  stop.mutable_stop_process()->set_session(path->session);
  stop.mutable_stop_process()->set_process(path->process);
  if (request->has_grace()) {
    *stop.mutable_stop_process()->mutable_grace() = request->grace();
  }
  absl::StatusOr<sup::Response> answer = Call(*context, std::move(stop));
  if (!answer.ok()) return ToGrpc(answer.status());
  *response = ToProcessStatus(answer->process());
  return grpc::Status::OK;
}

grpc::Status ControlService::ListChannels(
    grpc::ServerContext* context, const v1::ListChannelsRequest* request,
    v1::ListChannelsResponse* response) {
  absl::StatusOr<std::string> session = SessionFilter(request->session());
  if (!session.ok()) return ToGrpc(session.status());
  absl::StatusOr<sup::ListResponse> list = List(*context);
  if (!list.ok()) return ToGrpc(list.status());
  response->set_revision(list->revision());
  std::vector<v1::ChannelStatus> channels;
  for (const sup::ChannelInfo& info : list->channels()) {
    if (!session->empty() && info.session() != *session) continue;
    v1::ChannelStatus& channel = channels.emplace_back();
    channel.set_name(absl::StrCat(SessionName(info.session()), "/channels/",
                                  info.spec().name()));
    *channel.mutable_channel() = ToChannel(info.spec());
    *channel.mutable_granted_to() = info.granted_to();
  }
  return ToGrpc(Paginate(
      std::move(channels), request->page_size(), request->page_token(),
      [&](v1::ChannelStatus c) { *response->add_channels() = std::move(c); },
      response->mutable_next_page_token()));
}

}  // namespace parley::control
