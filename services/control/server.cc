#include "services/control/server.h"

#include <grpcpp/ext/channelz_service_plugin.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <unistd.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "services/control/convert.h"
#include "services/control/runtime_directory.h"

namespace parley::control {
namespace {

namespace sup = supervisor::v1;

constexpr absl::Duration kPollInterval = absl::Milliseconds(100);

}  // namespace

Server::Server(std::string socket, ControlServiceOptions options,
               supervisor::Client watcher)
    : socket_(std::move(socket)),
      service_(std::move(options)),
      watcher_(std::move(watcher)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(
    const std::string& socket, ControlServiceOptions options) {
  absl::StatusOr<supervisor::Client> watcher =
      supervisor::Client::Connect(options.supervisor_socket);
  if (!watcher.ok()) return watcher.status();
  // Once for all servers of this process, and before the first is built.
  static const bool kPluginsAreIn = [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::channelz::experimental::InitChannelzService();
    return true;
  }();
  (void)kPluginsAreIn;

  std::unique_ptr<Server> server(
      new Server(socket, std::move(options), *std::move(watcher)));
  grpc::ServerBuilder builder;
  // As it is by default, another server could take over the same address.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(absl::StrCat("unix:", socket),
                           grpc::InsecureServerCredentials());
  builder.RegisterService(&server->service_);
  {
    const PrivateUmask umask;
    server->server_ = builder.BuildAndStart();
  }
  if (server->server_ == nullptr) {
    return absl::InternalError(absl::StrCat("gRPC cannot listen at ", socket));
  }
  server->health_ =
      std::thread([server = server.get()] { server->WatchHealth(); });
  return server;
}

Server::~Server() {
  ending_ = true;
  if (health_.joinable()) health_.join();
  if (server_ == nullptr) return;
  // Streams would go on for as long as their clients like.
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  unlink(socket_.c_str());
}

void Server::SetHealth(const sup::ProcessInfo& info) {
  server_->GetHealthCheckService()->SetServingStatus(
      ProcessName(info.session(), info.name()), info.state() == sup::READY);
}

void Server::WatchHealth() {
  const auto watch = [this]() -> absl::Status {
    sup::ClientMessage list;
    list.mutable_list();
    absl::StatusOr<sup::Response> listed = watcher_.Call(std::move(list));
    if (!listed.ok()) return listed.status();
    for (const sup::ProcessInfo& info : listed->list().processes()) {
      SetHealth(info);
    }
    sup::ClientMessage subscribe;
    subscribe.mutable_subscribe()->set_events(true);
    subscribe.mutable_subscribe()->set_after_revision(
        listed->list().revision());
    absl::Status status = watcher_.Call(std::move(subscribe)).status();
    while (status.ok() && !ending_) {
      absl::StatusOr<sup::ServerMessage> message = watcher_.Next(kPollInterval);
      if (message.ok() && message->event().has_process()) {
        SetHealth(message->event().process());
      }
      if (!absl::IsDeadlineExceeded(message.status())) {
        status = message.status();
      }
    }
    return status;
  };
  if (watch().ok()) return;
  alive_ = false;
  server_->GetHealthCheckService()->SetServingStatus(false);
}

}  // namespace parley::control
