#include "services/control/convert.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/control/utf8.h"

namespace parley::control {
namespace {

namespace sup = supervisor::v1;

v1::ProcessStatus::State ToState(sup::ProcessState state) {
  switch (state) {
    case sup::PENDING:
      return v1::ProcessStatus::PENDING;
    case sup::STARTED:
      return v1::ProcessStatus::STARTED;
    case sup::READY:
      return v1::ProcessStatus::READY;
    case sup::STOPPING:
      return v1::ProcessStatus::STOPPING;
    case sup::EXITED:
      return v1::ProcessStatus::EXITED;
    case sup::FAILED:
      return v1::ProcessStatus::FAILED;
    default:
      return v1::ProcessStatus::STATE_UNSPECIFIED;
  }
}

}  // namespace

std::string SessionName(absl::string_view session) {
  return absl::StrCat("sessions/", session);
}

std::string ProcessName(absl::string_view session, absl::string_view process) {
  return absl::StrCat("sessions/", session, "/processes/", process);
}

absl::StatusOr<std::string> ParseSessionName(absl::string_view name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  if (parts.size() != 2 || parts[0] != "sessions" || parts[1].empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", name, "\" names no session; write \"sessions/NAME\""));
  }
  return parts[1];
}

absl::StatusOr<ProcessPath> ParseProcessName(absl::string_view name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  if (parts.size() != 4 || parts[0] != "sessions" || parts[1].empty() ||
      parts[2] != "processes" || parts[3].empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", name,
                     "\" names no process; write "
                     "\"sessions/SESSION/processes/PROCESS\""));
  }
  return ProcessPath{parts[1], parts[3]};
}

v1::Session ToSession(const sup::SessionInfo& info) {
  v1::Session session;
  session.set_name(SessionName(info.name()));
  session.set_stopping(info.stopping());
  return session;
}

v1::ProcessStatus ToProcessStatus(const sup::ProcessInfo& info) {
  v1::ProcessStatus status;
  status.set_name(ProcessName(info.session(), info.name()));
  status.set_state(ToState(info.state()));
  status.set_pid(info.pid());
  if (info.state() == sup::EXITED) {
    switch (info.exit().how_case()) {
      case sup::ExitStatus::kCode:
        status.mutable_exit()->set_code(info.exit().code());
        break;
      case sup::ExitStatus::kSignal:
        status.mutable_exit()->set_signal(info.exit().signal());
        break;
      case sup::ExitStatus::HOW_NOT_SET:
        status.mutable_exit()->set_unknown(true);
        break;
    }
  }
  status.set_status_text(ValidUtf8(info.status_text()));
  status.set_error(info.error());
  if (info.has_started()) *status.mutable_started() = info.started();
  if (info.has_ended()) *status.mutable_ended() = info.ended();
  status.set_generation(info.generation());
  return status;
}

v1::WatchResponse ToWatchResponse(const sup::Event& event) {
  v1::WatchResponse response;
  response.set_revision(event.revision());
  *response.mutable_time() = event.time();
  switch (event.change_case()) {
    case sup::Event::kProcess:
      *response.mutable_process() = ToProcessStatus(event.process());
      break;
    case sup::Event::kSessionUp:
      *response.mutable_session_up() = ToSession(event.session_up());
      break;
    case sup::Event::kSessionDown:
      *response.mutable_session_down() = ToSession(event.session_down());
      break;
    case sup::Event::CHANGE_NOT_SET:
      break;
  }
  return response;
}

v1::Output::Stream ToStream(sup::Stream stream) {
  switch (stream) {
    case sup::STDOUT:
      return v1::Output::STDOUT;
    case sup::STDERR:
      return v1::Output::STDERR;
    default:
      return v1::Output::STREAM_UNSPECIFIED;
  }
}

v1::Channel ToChannel(const sup::ChannelSpec& spec) {
  v1::Channel channel;
  channel.set_name(spec.name());
  switch (spec.kind_case()) {
    case sup::ChannelSpec::kPipe:
      channel.mutable_pipe()->set_duplex(spec.pipe().duplex());
      break;
    case sup::ChannelSpec::kShm:
      channel.mutable_shm()->set_bytes(spec.shm().bytes());
      break;
    case sup::ChannelSpec::kMqueue:
      channel.mutable_mqueue()->set_slots(spec.mqueue().slots());
      channel.mutable_mqueue()->set_message_bytes(
          spec.mqueue().message_bytes());
      break;
    case sup::ChannelSpec::KIND_NOT_SET:
      break;
  }
  return channel;
}

}  // namespace parley::control
