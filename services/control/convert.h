// From the supervisor's messages to the API's.
#ifndef SERVICES_CONTROL_CONVERT_H_
#define SERVICES_CONTROL_CONVERT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/control/control.pb.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::control {

// "sessions/S" and "sessions/S/processes/P".
std::string SessionName(absl::string_view session);
std::string ProcessName(absl::string_view session, absl::string_view process);

// S, of "sessions/S". InvalidArgument if it is not of that form.
absl::StatusOr<std::string> ParseSessionName(absl::string_view name);
struct ProcessPath {
  std::string session;
  std::string process;
};
absl::StatusOr<ProcessPath> ParseProcessName(absl::string_view name);

v1::Session ToSession(const supervisor::v1::SessionInfo& info);
v1::ProcessStatus ToProcessStatus(const supervisor::v1::ProcessInfo& info);
// Of a change that is an event.
v1::WatchResponse ToWatchResponse(const supervisor::v1::Event& event);
v1::Output::Stream ToStream(supervisor::v1::Stream stream);
v1::Channel ToChannel(const supervisor::v1::ChannelSpec& spec);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_CONVERT_H_
