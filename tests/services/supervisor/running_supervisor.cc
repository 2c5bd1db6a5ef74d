#include "tests/services/supervisor/running_supervisor.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "ipc/process/spawn.h"

namespace parley::supervisor {
namespace {

v1::ClientMessage UpMessage(const v1::SessionSpec& session,
                            bool bound_to_connection) {
  v1::ClientMessage message;
  *message.mutable_up()->mutable_session() = session;
  message.mutable_up()->set_bound_to_connection(bound_to_connection);
  return message;
}

// Listens at an abstract name that the kernel picks, which is returned as it is
// in sun_path.
std::string Listen(ipc::UniqueFd& listener) {
  listener.Reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  EXPECT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address),
                 sizeof(sa_family_t)),
            0);
  EXPECT_EQ(listen(listener.get(), SOMAXCONN), 0);
  socklen_t length = sizeof(address);
  EXPECT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address),
                        &length),
            0);
  return std::string(address.sun_path,
                     length - offsetof(sockaddr_un, sun_path));
}

}  // namespace

std::string Runfile(absl::string_view path) {
  return absl::StrCat(getenv("TEST_SRCDIR"), "/", getenv("TEST_WORKSPACE"), "/",
                      path);
}

std::string Testcase(absl::string_view name) {
  return Runfile(absl::StrCat("tests/testcases/", name));
}

v1::SessionSpec Session(const std::string& name) {
  v1::SessionSpec session;
  session.set_name(name);
  return session;
}

v1::ChannelSpec Pipe(const std::string& name, bool duplex) {
  v1::ChannelSpec channel;
  channel.set_name(name);
  channel.mutable_pipe()->set_duplex(duplex);
  return channel;
}

v1::ProcessSpec Process(const std::string& name, const std::string& path,
                        const std::vector<std::string>& args) {
  v1::ProcessSpec process;
  process.set_name(name);
  process.set_path(path);
  for (const std::string& arg : args) process.add_args(arg);
  return process;
}

void AddGrant(v1::ProcessSpec& process, const std::string& channel,
              v1::Role role) {
  v1::Grant& grant = *process.add_grants();
  grant.set_channel(channel);
  grant.set_role(role);
  grant.set_as(channel);
}

void AddDependency(v1::ProcessSpec& process, const std::string& on,
                   v1::DependencyCondition condition) {
  v1::Dependency& dependency = *process.add_dependencies();
  dependency.set_process(on);
  dependency.set_condition(condition);
}

RunningSupervisor::RunningSupervisor(rlim_t soft_files, rlim_t hard_files) {
  ipc::UniqueFd listener;
  abstract_name_ = Listen(listener);
  int control[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control), 0);
  const ipc::UniqueFd its_end(control[1]);

  ipc::process::SpawnOptions options;
  options.argv = {Runfile("services/supervisor/supervisor")};
  options.env = {"LISTEN_FDS=2", "LISTEN_FDNAMES=control:listen"};
  options.pid_env = "LISTEN_PID";
  options.fds = {{3, its_end.get()}, {4, listener.get()}};
  options.new_session = true;
  if (hard_files != 0) {
    options.limits = {
        {RLIMIT_NOFILE, {.rlim_cur = soft_files, .rlim_max = hard_files}}};
  }
  absl::StatusOr<ipc::process::Process> process = ipc::process::Spawn(options);
  EXPECT_TRUE(process.ok()) << process.status();
  process_ = std::make_unique<ipc::process::Process>(*std::move(process));
  absl::StatusOr<Client> client = Client::FromFd(ipc::UniqueFd(control[0]));
  EXPECT_TRUE(client.ok()) << client.status();
  client_ = std::make_unique<Client>(*std::move(client));

  watcher_ = Connect();
  v1::SubscribeRequest subscribe;
  subscribe.set_events(true);
  subscribe.set_logs(true);
  EXPECT_TRUE(Subscribe(*watcher_, subscribe).ok());
}

RunningSupervisor::~RunningSupervisor() {
  client_.reset();
  const auto status = process_->Join(kPatience);
  EXPECT_TRUE(status.ok()) << status.status();
  if (!status.ok()) (void)process_->Kill();
}

std::unique_ptr<Client> RunningSupervisor::Connect() const {
  absl::StatusOr<Client> client = Client::FromFd(ConnectFd());
  EXPECT_TRUE(client.ok()) << client.status();
  return std::make_unique<Client>(*std::move(client));
}

ipc::UniqueFd RunningSupervisor::ConnectFd() const {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, abstract_name_.data(), abstract_name_.size());
  ipc::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address),
                    offsetof(sockaddr_un, sun_path) + abstract_name_.size()),
            0)
      << strerror(errno);
  return fd;
}

absl::Status RunningSupervisor::Up(const v1::SessionSpec& session) {
  return supervisor::Up(*client_, session);
}

absl::Status RunningSupervisor::Down(const std::string& session) {
  return supervisor::Down(*client_, session);
}

absl::StatusOr<v1::ProcessInfo> RunningSupervisor::StartProcess(
    const std::string& session, const v1::ProcessSpec& process) {
  v1::ClientMessage message;
  message.mutable_start_process()->set_session(session);
  *message.mutable_start_process()->mutable_process() = process;
  const auto response = client_->Call(std::move(message), kPatience);
  if (!response.ok()) return response.status();
  return response->process();
}

absl::StatusOr<v1::ProcessInfo> RunningSupervisor::StopProcess(
    const std::string& session, const std::string& process,
    absl::Duration grace) {
  v1::ClientMessage message;
  v1::StopProcessRequest& stop = *message.mutable_stop_process();
  stop.set_session(session);
  stop.set_process(process);
  stop.mutable_grace()->set_seconds(absl::ToInt64Seconds(grace));
  stop.mutable_grace()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(grace) % 1'000'000'000));
  const auto response = client_->Call(std::move(message), kPatience);
  if (!response.ok()) return response.status();
  return response->process();
}

v1::ListResponse RunningSupervisor::List() {
  v1::ClientMessage message;
  message.mutable_list();
  const auto response = client_->Call(std::move(message), kPatience);
  EXPECT_TRUE(response.ok()) << response.status();
  return response.ok() ? response->list() : v1::ListResponse();
}

v1::ServerMessage RunningSupervisor::Await(
    const std::function<bool(const v1::ServerMessage&)>& is_awaited) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (true) {
    absl::StatusOr<v1::ServerMessage> message =
        watcher_->Next(deadline - absl::Now());
    if (!message.ok()) {
      ADD_FAILURE() << "what is awaited does not come: " << message.status();
      return {};
    }
    if (message->has_event()) events_.push_back(message->event());
    if (message->has_log()) {
      outputs_[{message->log().session(), message->log().process()}] +=
          message->log().data();
    }
    if (is_awaited(*message)) return *std::move(message);
  }
}

v1::ProcessInfo RunningSupervisor::AwaitState(const std::string& session,
                                              const std::string& process,
                                              v1::ProcessState state) {
  return Await([&](const v1::ServerMessage& message) {
           const v1::ProcessInfo& info = message.event().process();
           return info.session() == session && info.name() == process &&
                  info.state() == state;
         })
      .event()
      .process();
}

void RunningSupervisor::AwaitOutput(const std::string& session,
                                    const std::string& process,
                                    absl::string_view text) {
  const std::string& output = outputs_[{session, process}];
  if (absl::EndsWith(output, text)) return;
  Await([&](const v1::ServerMessage& message) {
    return message.has_log() && absl::EndsWith(output, text);
  });
}

absl::Status Up(Client& client, const v1::SessionSpec& session,
                bool bound_to_connection) {
  return client.Call(UpMessage(session, bound_to_connection), kPatience)
      .status();
}

absl::Status Down(Client& client, const std::string& session) {
  v1::ClientMessage message;
  message.mutable_down()->set_session(session);
  return client.Call(std::move(message), kPatience).status();
}

absl::Status Subscribe(Client& client, const v1::SubscribeRequest& request) {
  v1::ClientMessage message;
  *message.mutable_subscribe() = request;
  return client.Call(std::move(message), kPatience).status();
}

}  // namespace parley::supervisor
