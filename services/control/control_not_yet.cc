// The RPCs that are promised by control.proto and not there yet.
#include <string>

#include "absl/strings/str_cat.h"
#include "services/control/control_service.h"

namespace parley::control {
namespace {

// `instead` is what can be done meanwhile.
grpc::Status NotYet(absl::string_view rpc, absl::string_view instead = "") {
  return grpc::Status(grpc::StatusCode::UNIMPLEMENTED,
                      absl::StrCat(rpc, " is not implemented yet",
                                   instead.empty() ? "" : "; ", instead));
}

}  // namespace

grpc::Status ControlService::GetReport(grpc::ServerContext*,
                                       const v1::GetReportRequest*,
                                       v1::Report*) {
  return NotYet("GetReport", "RunScenario's events hold all of it");
}

grpc::Status ControlService::Apply(grpc::ServerContext*,
                                   const v1::ApplyRequest*,
                                   v1::ApplyResponse*) {
  return NotYet("Apply", "call Down, then Up");
}

grpc::Status ControlService::RestartProcess(grpc::ServerContext*,
                                            const v1::RestartProcessRequest*,
                                            v1::ProcessStatus*) {
  return NotYet("RestartProcess", "call StopProcess, then StartProcess");
}

grpc::Status ControlService::SignalProcess(grpc::ServerContext*,
                                           const v1::SignalProcessRequest*,
                                           v1::ProcessStatus*) {
  return NotYet("SignalProcess");
}

grpc::Status ControlService::PauseProcess(grpc::ServerContext*,
                                          const v1::PauseProcessRequest*,
                                          v1::ProcessStatus*) {
  return NotYet("PauseProcess");
}

grpc::Status ControlService::ResumeProcess(grpc::ServerContext*,
                                           const v1::ResumeProcessRequest*,
                                           v1::ProcessStatus*) {
  return NotYet("ResumeProcess");
}

grpc::Status ControlService::GetChannel(grpc::ServerContext*,
                                        const v1::GetChannelRequest*,
                                        v1::ChannelStatus*) {
  return NotYet("GetChannel", "call ListChannels");
}

grpc::Status ControlService::CreateChannel(grpc::ServerContext*,
                                           const v1::CreateChannelRequest*,
                                           v1::ChannelStatus*) {
  return NotYet("CreateChannel");
}

grpc::Status ControlService::DeleteChannel(grpc::ServerContext*,
                                           const v1::DeleteChannelRequest*,
                                           v1::DeleteChannelResponse*) {
  return NotYet("DeleteChannel");
}

grpc::Status ControlService::GrantChannel(grpc::ServerContext*,
                                          const v1::GrantChannelRequest*,
                                          v1::ChannelStatus*) {
  return NotYet("GrantChannel");
}

grpc::Status ControlService::AddFault(grpc::ServerContext*,
                                      const v1::AddFaultRequest*, v1::Fault*) {
  return NotYet("AddFault");
}

grpc::Status ControlService::ClearFault(grpc::ServerContext*,
                                        const v1::ClearFaultRequest*,
                                        v1::ClearFaultResponse*) {
  return NotYet("ClearFault");
}

grpc::Status ControlService::ListFaults(grpc::ServerContext*,
                                        const v1::ListFaultsRequest*,
                                        v1::ListFaultsResponse*) {
  return NotYet("ListFaults");
}

grpc::Status ControlService::WatchChannels(
    grpc::ServerContext*, const v1::WatchChannelsRequest*,
    grpc::ServerWriter<v1::WatchChannelsResponse>*) {
  return NotYet("WatchChannels");
}

}  // namespace parley::control
