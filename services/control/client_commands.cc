#include "services/control/client_commands.h"

#include <grpcpp/grpcpp.h>
#include <stdio.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/util/json_util.h"
#include "services/control/control.grpc.pb.h"
#include "services/control/exit_codes.h"

namespace parley::control {
namespace {

std::unique_ptr<v1::Control::Stub> Connect(const ClientOptions& options) {
  return v1::Control::NewStub(
      grpc::CreateChannel(absl::StrCat("unix:", options.socket),
                          grpc::InsecureChannelCredentials()));
}

void Print(absl::string_view text) {
  fwrite(text.data(), 1, text.size(), stdout);
  fflush(stdout);
}

void PrintJson(const google::protobuf::Message& message) {
  std::string json;
  (void)google::protobuf::util::MessageToJsonString(message, &json);
  Print(absl::StrCat(json, "\n"));
}

int ExitCode(const ClientOptions& options, const grpc::Status& status) {
  if (status.ok()) return kExitOk;
  fprintf(stderr, "parley: %s\n", status.error_message().c_str());
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    fprintf(stderr,
            "parley: nothing serves at %s; start `parley serve`, or name its "
            "--directory\n",
            options.socket.c_str());
    return kExitInfrastructure;
  }
  return kExitFailed;
}

std::string FullSession(const std::string& session) {
  if (session.empty() || absl::StartsWith(session, "sessions/")) {
    return session;
  }
  return absl::StrCat("sessions/", session);
}

std::string FullProcess(const std::string& process) {
  const size_t slash = process.find('/');
  if (slash == std::string::npos || absl::StartsWith(process, "sessions/")) {
    return process;
  }
  return absl::StrCat("sessions/", process.substr(0, slash), "/processes/",
                      process.substr(slash + 1));
}

// "sessions/S/processes/P" to "S/P".
std::string ShortProcess(const std::string& name) {
  std::string result = name.substr(std::string("sessions/").size());
  const size_t middle = result.find("/processes/");
  if (middle != std::string::npos) {
    result.replace(middle, std::string("/processes/").size(), "/");
  }
  return result;
}

std::string Describe(const v1::ProcessStatus& process) {
  std::string state = v1::ProcessStatus::State_Name(process.state());
  if (process.exit().how_case() == v1::ExitStatus::kCode) {
    absl::StrAppend(&state, " ", process.exit().code());
  } else if (process.exit().how_case() == v1::ExitStatus::kSignal) {
    absl::StrAppend(&state, " by signal ", process.exit().signal());
  }
  return absl::StrFormat(
      "%-32s %8d  %-20s %s%s\n", ShortProcess(process.name()), process.pid(),
      state, process.status_text(),
      process.error().empty() ? "" : absl::StrCat(" ", process.error()));
}

}  // namespace

int PsCommand(const ClientOptions& options, const std::string& session) {
  const auto stub = Connect(options);
  v1::ListProcessesRequest request;
  request.set_session(FullSession(session));
  if (!options.json) {
    Print(absl::StrFormat("%-32s %8s  %-20s %s\n", "PROCESS", "PID", "STATE",
                          "STATUS"));
  }
  grpc::Status status;
  do {
    grpc::ClientContext context;
    v1::ListProcessesResponse response;
    status = stub->ListProcesses(&context, request, &response);
    for (const v1::ProcessStatus& process : response.processes()) {
      options.json ? PrintJson(process) : Print(Describe(process));
    }
    request.set_page_token(response.next_page_token());
  } while (status.ok() && !request.page_token().empty());
  return ExitCode(options, status);
}

int LogsCommand(const ClientOptions& options, const std::string& target,
                bool follow) {
  const auto stub = Connect(options);
  v1::TailLogsRequest request;
  request.set_follow(follow);
  const std::string process = FullProcess(target);
  if (absl::StrContains(process, "/processes/")) {
    request.set_process(process);
  } else {
    request.set_session(FullSession(target));
  }
  grpc::ClientContext context;
  const auto reader = stub->TailLogs(&context, request);
  v1::TailLogsResponse response;
  while (reader->Read(&response)) {
    if (options.json) {
      PrintJson(response);
      continue;
    }
    if (response.dropped() > 0) {
      fprintf(stderr, "parley: %s: %lu bytes were dropped here\n",
              ShortProcess(response.process()).c_str(),
              static_cast<unsigned long>(response.dropped()));
    }
    Print(response.data());
  }
  return ExitCode(options, reader->Finish());
}

int WatchCommand(const ClientOptions& options, const std::string& session) {
  const auto stub = Connect(options);
  v1::WatchRequest request;
  request.set_session(FullSession(session));
  grpc::ClientContext context;
  const auto reader = stub->Watch(&context, request);
  v1::WatchResponse response;
  while (reader->Read(&response)) {
    if (options.json) {
      PrintJson(response);
    } else if (response.has_process()) {
      Print(Describe(response.process()));
    } else if (response.has_session_up()) {
      Print(absl::StrCat(response.session_up().name(), " UP\n"));
    } else if (response.has_session_down()) {
      Print(absl::StrCat(response.session_down().name(), " DOWN\n"));
    } else {
      for (const v1::ProcessStatus& process : response.snapshot().processes()) {
        Print(Describe(process));
      }
    }
  }
  return ExitCode(options, reader->Finish());
}

int StartCommand(const ClientOptions& options, const std::string& process,
                 const std::string& binary,
                 const std::vector<std::string>& args) {
  const auto stub = Connect(options);
  const std::string full = FullProcess(process);
  const size_t middle = full.find("/processes/");
  if (middle == std::string::npos) {
    fprintf(stderr, "parley: \"%s\" names no process; write SESSION/PROCESS\n",
            process.c_str());
    return kExitUsage;
  }
  v1::StartProcessRequest request;
  request.set_session(full.substr(0, middle));
  v1::Process& spec = *request.mutable_process();
  spec.set_name(full.substr(middle + std::string("/processes/").size()));
  // The server has another working directory.
  std::error_code error;
  spec.set_binary(absl::StartsWith(binary, "//")
                      ? binary
                      : std::filesystem::absolute(binary, error).string());
  *spec.mutable_args() = {args.begin(), args.end()};
  grpc::ClientContext context;
  v1::ProcessStatus response;
  const grpc::Status status = stub->StartProcess(&context, request, &response);
  if (status.ok()) {
    options.json ? PrintJson(response) : Print(Describe(response));
  }
  return ExitCode(options, status);
}

int StopCommand(const ClientOptions& options, const std::string& process) {
  const auto stub = Connect(options);
  v1::StopProcessRequest request;
  request.set_name(FullProcess(process));
  grpc::ClientContext context;
  v1::ProcessStatus response;
  const grpc::Status status = stub->StopProcess(&context, request, &response);
  if (status.ok()) {
    options.json ? PrintJson(response) : Print(Describe(response));
  }
  return ExitCode(options, status);
}

int UpCommand(const ClientOptions& options, const std::string& file) {
  const auto stub = Connect(options);
  std::ifstream stream(file);
  if (!stream) {
    fprintf(stderr, "parley: cannot read %s\n", file.c_str());
    return kExitUsage;
  }
  std::stringstream text;
  text << stream.rdbuf();
  v1::UpRequest request;
  request.mutable_scenario()->set_text(text.str());
  std::error_code error;
  request.mutable_scenario()->set_file_name(
      std::filesystem::absolute(file, error).string());
  grpc::ClientContext context;
  v1::Session response;
  const grpc::Status status = stub->Up(&context, request, &response);
  if (status.ok()) {
    options.json ? PrintJson(response)
                 : Print(absl::StrCat(response.name(), "\n"));
  }
  return ExitCode(options, status);
}

int DownCommand(const ClientOptions& options, const std::string& session) {
  const auto stub = Connect(options);
  v1::DownRequest request;
  request.set_session(FullSession(session));
  grpc::ClientContext context;
  v1::DownResponse response;
  return ExitCode(options, stub->Down(&context, request, &response));
}

}  // namespace parley::control
