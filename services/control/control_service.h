// The RPC service Control, on top of a supervisor.
//
// It holds no truth of its own: each call opens a connection to the supervisor
// for as long as it lasts, so that calls do not wait for each other, and
// everything goes on when the server is replaced by another. RPCs that the
// supervisor cannot serve yet are UNIMPLEMENTED, by name.
//
// A stream notices within 100 ms that its client has gone.
//
// Thread safety: gRPC calls it from many threads.
#ifndef SERVICES_CONTROL_CONTROL_SERVICE_H_
#define SERVICES_CONTROL_CONTROL_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/control/binaries.h"
#include "services/control/control.grpc.pb.h"
#include "services/control/plan.h"
#include "services/supervisor/client.h"

namespace parley::control {

struct ControlServiceOptions {
  std::string supervisor_socket;
  BinaryResolver binaries;
};

class ControlService final : public v1::Control::Service {
 public:
  explicit ControlService(ControlServiceOptions options)
      : options_(std::move(options)) {}

  grpc::Status Plan(grpc::ServerContext* context,
                    const v1::PlanRequest* request,
                    v1::PlanResponse* response) override;
  grpc::Status RunScenario(
      grpc::ServerContext* context, const v1::RunScenarioRequest* request,
      grpc::ServerWriter<v1::RunScenarioResponse>* writer) override;

  grpc::Status Up(grpc::ServerContext* context, const v1::UpRequest* request,
                  v1::Session* response) override;
  grpc::Status Down(grpc::ServerContext* context,
                    const v1::DownRequest* request,
                    v1::DownResponse* response) override;
  grpc::Status ListSessions(grpc::ServerContext* context,
                            const v1::ListSessionsRequest* request,
                            v1::ListSessionsResponse* response) override;

  grpc::Status ListProcesses(grpc::ServerContext* context,
                             const v1::ListProcessesRequest* request,
                             v1::ListProcessesResponse* response) override;
  grpc::Status GetProcess(grpc::ServerContext* context,
                          const v1::GetProcessRequest* request,
                          v1::ProcessStatus* response) override;
  grpc::Status StartProcess(grpc::ServerContext* context,
                            const v1::StartProcessRequest* request,
                            v1::ProcessStatus* response) override;
  grpc::Status StopProcess(grpc::ServerContext* context,
                           const v1::StopProcessRequest* request,
                           v1::ProcessStatus* response) override;
  grpc::Status WaitProcess(grpc::ServerContext* context,
                           const v1::WaitProcessRequest* request,
                           v1::ProcessStatus* response) override;

  grpc::Status ListChannels(grpc::ServerContext* context,
                            const v1::ListChannelsRequest* request,
                            v1::ListChannelsResponse* response) override;

  grpc::Status Watch(grpc::ServerContext* context,
                     const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override;
  grpc::Status TailLogs(
      grpc::ServerContext* context, const v1::TailLogsRequest* request,
      grpc::ServerWriter<v1::TailLogsResponse>* writer) override;

  // ---- Not yet. ----

  grpc::Status GetReport(grpc::ServerContext* context,
                         const v1::GetReportRequest* request,
                         v1::Report* response) override;
  grpc::Status Apply(grpc::ServerContext* context,
                     const v1::ApplyRequest* request,
                     v1::ApplyResponse* response) override;
  grpc::Status RestartProcess(grpc::ServerContext* context,
                              const v1::RestartProcessRequest* request,
                              v1::ProcessStatus* response) override;
  grpc::Status SignalProcess(grpc::ServerContext* context,
                             const v1::SignalProcessRequest* request,
                             v1::ProcessStatus* response) override;
  grpc::Status PauseProcess(grpc::ServerContext* context,
                            const v1::PauseProcessRequest* request,
                            v1::ProcessStatus* response) override;
  grpc::Status ResumeProcess(grpc::ServerContext* context,
                             const v1::ResumeProcessRequest* request,
                             v1::ProcessStatus* response) override;
  grpc::Status GetChannel(grpc::ServerContext* context,
                          const v1::GetChannelRequest* request,
                          v1::ChannelStatus* response) override;
  grpc::Status CreateChannel(grpc::ServerContext* context,
                             const v1::CreateChannelRequest* request,
                             v1::ChannelStatus* response) override;
  grpc::Status DeleteChannel(grpc::ServerContext* context,
                             const v1::DeleteChannelRequest* request,
                             v1::DeleteChannelResponse* response) override;
  grpc::Status GrantChannel(grpc::ServerContext* context,
                            const v1::GrantChannelRequest* request,
                            v1::ChannelStatus* response) override;
  grpc::Status WatchChannels(
      grpc::ServerContext* context, const v1::WatchChannelsRequest* request,
      grpc::ServerWriter<v1::WatchChannelsResponse>* writer) override;
  grpc::Status AddFault(grpc::ServerContext* context,
                        const v1::AddFaultRequest* request,
                        v1::Fault* response) override;
  grpc::Status ClearFault(grpc::ServerContext* context,
                          const v1::ClearFaultRequest* request,
                          v1::ClearFaultResponse* response) override;
  grpc::Status ListFaults(grpc::ServerContext* context,
                          const v1::ListFaultsRequest* request,
                          v1::ListFaultsResponse* response) override;

 private:
  absl::StatusOr<supervisor::Client> Connect() const;
  // Asks a question of its own connection.
  absl::StatusOr<supervisor::v1::Response> Call(
      const grpc::ServerContext& context,
      supervisor::v1::ClientMessage request) const;
  absl::StatusOr<supervisor::v1::ListResponse> List(
      const grpc::ServerContext& context) const;
  absl::StatusOr<control::Plan> MakePlanOf(
      const v1::ScenarioSource& source) const;
  // What the supervisor is told to start in `session`, of which `list` says
  // what is there already.
  absl::StatusOr<supervisor::v1::ProcessSpec> SpecOf(
      const v1::Process& process, const std::string& session,
      const supervisor::v1::ListResponse& list) const;
  // Hands every message pushed on `client` to `handle`, until that returns
  // false or the caller has gone.
  grpc::Status Pump(
      const grpc::ServerContext& context, supervisor::Client& client,
      const std::function<bool(const supervisor::v1::ServerMessage&)>& handle)
      const;

  const ControlServiceOptions options_;
  // Makes the names of sessions that run scenarios unique.
  std::atomic<uint64_t> runs_ = 0;
};

}  // namespace parley::control

#endif  // SERVICES_CONTROL_CONTROL_SERVICE_H_
