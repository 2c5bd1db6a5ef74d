// `parley serve` over its real socket.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/control/control.grpc.pb.h"
#include "tests/services/control/parley_process.h"

namespace parley::control {
namespace {

using ::testing::HasSubstr;

constexpr char kTests[] = "//tests/testcases:";

class ServerTest : public testing::Test {
 protected:
  ServerTest() {
    // TEST_TMPDIR can be too long for a socket.
    char pattern[] = "/tmp/parleyXXXXXX";
    parent_ = mkdtemp(pattern);
    directory_ = parent_ + "/run";
    Serve();
  }
  ~ServerTest() override {
    if (server_ != nullptr) {
      EXPECT_EQ(Stop(), 0);
    }
    for (const char* name :
         {"/control.lock", "/supervisor.lock", "/supervisor.log"}) {
      unlink((directory_ + name).c_str());
    }
    // Fails if a socket was left.
    EXPECT_EQ(rmdir(directory_.c_str()), 0);
    rmdir(parent_.c_str());
  }

  void Serve() {
    server_ = std::make_unique<ParleyProcess>(
        std::vector<std::string>{"serve", "--directory", directory_});
    ASSERT_EQ(server_->ReadLine(),
              absl::StrCat("serving at ", directory_, "/control.sock"))
        << server_->err();
    channel_ =
        grpc::CreateChannel(absl::StrCat("unix:", directory_, "/control.sock"),
                            grpc::InsecureChannelCredentials());
    stub_ = v1::Control::NewStub(channel_);
  }
  int Stop() {
    EXPECT_TRUE(server_->process().Terminate().ok());
    const int exit_code = server_->Join();
    if (exit_code != 0) ADD_FAILURE() << server_->err();
    server_.reset();
    return exit_code;
  }

  // Calls a unary RPC and expects it to succeed.
  template <typename Request, typename Response>
  Response Call(grpc::Status (v1::Control::Stub::*rpc)(grpc::ClientContext*,
                                                       const Request&,
                                                       Response*),
                const Request& request,
                grpc::StatusCode expected = grpc::StatusCode::OK) {
    grpc::ClientContext context;
    Response response;
    const grpc::Status status =
        (stub_.get()->*rpc)(&context, request, &response);
    EXPECT_EQ(status.error_code(), expected) << status.error_message();
    error_ = status.error_message();
    return response;
  }
  v1::ProcessStatus Start(const std::string& name, const std::string& binary,
                          const std::string& arg = "") {
    v1::StartProcessRequest request;
    request.set_session("sessions/s");
    request.mutable_process()->set_name(name);
    request.mutable_process()->set_binary(kTests + binary);
    if (!arg.empty()) request.mutable_process()->add_args(arg);
    return Call(&v1::Control::Stub::StartProcess, request);
  }
  v1::ProcessStatus WaitFor(const std::string& name,
                            v1::ProcessStatus::State state) {
    v1::WaitProcessRequest request;
    request.set_name("sessions/s/processes/" + name);
    request.add_state(state);
    return Call(&v1::Control::Stub::WaitProcess, request);
  }
  v1::ProcessStatus StopProcess(const std::string& name) {
    v1::StopProcessRequest request;
    request.set_name("sessions/s/processes/" + name);
    return Call(&v1::Control::Stub::StopProcess, request);
  }
  std::string TextOf(const v1::TailLogsRequest& request) {
    grpc::ClientContext context;
    const auto reader = stub_->TailLogs(&context, request);
    v1::TailLogsResponse response;
    std::string text;
    while (reader->Read(&response)) text += response.data();
    EXPECT_TRUE(reader->Finish().ok());
    return text;
  }
  // Calls an RPC by its name, with messages as bytes: the health and reflection
  // services have no headers installed.
  // `awaited` is the answer to wait for, of a method that answers repeatedly.
  std::string CallByName(const std::string& method, const std::string& bytes,
                         const std::string& awaited = "") {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const grpc::Slice slice(bytes);
    const auto call = stub.PrepareCall(&context, method, &queue);
    void* tag;
    bool ok;
    call->StartCall(nullptr);
    queue.Next(&tag, &ok);
    call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    queue.Next(&tag, &ok);
    call->WritesDone(nullptr);
    queue.Next(&tag, &ok);
    std::string text;
    do {
      grpc::ByteBuffer answer;
      call->Read(&answer, nullptr);
      queue.Next(&tag, &ok);
      text.clear();
      std::vector<grpc::Slice> slices;
      if (ok) (void)answer.Dump(&slices);
      for (const grpc::Slice& part : slices) {
        text.append(reinterpret_cast<const char*>(part.begin()), part.size());
      }
    } while (ok && !awaited.empty() && text != awaited);
    if (!awaited.empty()) context.TryCancel();
    grpc::Status status;
    call->Finish(&status, nullptr);
    queue.Next(&tag, &ok);
    EXPECT_TRUE(status.ok() || !awaited.empty()) << status.error_message();
    return text;
  }
  // HealthCheckRequest{service}, and HealthCheckResponse{status}.
  static std::string HealthOf(const std::string& service) {
    return absl::StrCat("\n", std::string(1, service.size()), service);
  }
  static constexpr char kServing[] = "\x08\x01";
  static constexpr char kNotServing[] = "\x08\x02";

  std::string parent_;
  std::string directory_;
  std::unique_ptr<ParleyProcess> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Control::Stub> stub_;
  std::string error_;  // of the last Call
};

TEST_F(ServerTest, IsForItsUserAlone) {
  for (const auto& [file, mode] :
       {std::pair("", 0700), std::pair("/control.sock", 0600),
        std::pair("/supervisor.sock", 0600)}) {
    struct stat status;
    ASSERT_EQ(stat((directory_ + file).c_str(), &status), 0) << file;
    EXPECT_EQ(status.st_mode & 07777, mode) << file;
  }
}

TEST_F(ServerTest, ASecondServerIsRefused) {
  ParleyProcess second({"serve", "--directory", directory_});
  EXPECT_EQ(second.Join(), 3);
  EXPECT_THAT(second.err(), HasSubstr("another `parley serve` has"));
  Call(&v1::Control::Stub::ListProcesses, v1::ListProcessesRequest());
}

TEST_F(ServerTest, PlansWithoutSideEffect) {
  v1::PlanRequest request;
  request.mutable_scenario()->set_file_name("x.textproto");
  request.mutable_scenario()->set_text(
      "process { name: \"a\" binary: \"/bin/true\" replicas: 2 }");
  EXPECT_EQ(Call(&v1::Control::Stub::Plan, request).wave(0).process_size(), 2);
  request.mutable_scenario()->set_text("process { nam: \"a\" }");
  Call(&v1::Control::Stub::Plan, request, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(error_, HasSubstr("x.textproto:1:11: Process.nam"));
  EXPECT_EQ(Call(&v1::Control::Stub::ListSessions, v1::ListSessionsRequest())
                .sessions_size(),
            0);
}

TEST_F(ServerTest, StartsWatchesAndStopsAProcess) {
  const v1::ProcessStatus started = Start("a", "sleeps_forever", "hello");
  EXPECT_EQ(started.name(), "sessions/s/processes/a");
  EXPECT_EQ(WaitFor("a", v1::ProcessStatus::READY).generation(), 1);

  grpc::ClientContext context;
  const auto watch = stub_->Watch(&context, v1::WatchRequest());
  v1::WatchResponse response;
  ASSERT_TRUE(watch->Read(&response));
  ASSERT_EQ(response.snapshot().processes_size(), 1);
  EXPECT_EQ(response.snapshot().processes(0).state(), v1::ProcessStatus::READY);
  const uint64_t revision = response.revision();

  EXPECT_EQ(StopProcess("a").exit().signal(), SIGTERM);
  std::vector<v1::ProcessStatus::State> states;
  while (states.empty() || states.back() != v1::ProcessStatus::EXITED) {
    ASSERT_TRUE(watch->Read(&response));
    EXPECT_GT(response.revision(), revision);
    states.push_back(response.process().state());
  }
  EXPECT_THAT(states, testing::ElementsAre(v1::ProcessStatus::STOPPING,
                                           v1::ProcessStatus::EXITED));
  context.TryCancel();
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);

  // A broken stream goes on where it was, with nothing lost.
  grpc::ClientContext again;
  v1::WatchRequest resume;
  resume.set_after_revision(revision);
  const auto resumed = stub_->Watch(&again, resume);
  ASSERT_TRUE(resumed->Read(&response));
  EXPECT_EQ(response.process().state(), v1::ProcessStatus::STOPPING);
  again.TryCancel();
  resumed->Finish();

  EXPECT_EQ(Start("a", "exits_with", "3").generation(), 2);
  EXPECT_EQ(WaitFor("a", v1::ProcessStatus::EXITED).exit().code(), 3);
}

TEST_F(ServerTest, ErrorsNameWhatIsThere) {
  v1::GetProcessRequest get;
  get.set_name("sessions/s/processes/nobody");
  Call(&v1::Control::Stub::GetProcess, get, grpc::StatusCode::NOT_FOUND);
  get.set_name("nobody");
  Call(&v1::Control::Stub::GetProcess, get, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(error_, HasSubstr("sessions/SESSION/processes/PROCESS"));
  v1::StartProcessRequest start;
  start.set_session("sessions/s");
  start.mutable_process()->set_name("a");
  start.mutable_process()->set_binary("//no/such");
  Call(&v1::Control::Stub::StartProcess, start,
       grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(error_, HasSubstr("process[0].binary: there is no binary"));
  Call(&v1::Control::Stub::ListFaults, v1::ListFaultsRequest(),
       grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(error_, HasSubstr("ListFaults is not implemented"));
}

TEST_F(ServerTest, ListsInPages) {
  for (const char* name : {"a", "b", "c"}) Start(name, "sleeps_forever");
  v1::ListProcessesRequest request;
  request.set_page_size(2);
  v1::ListProcessesResponse page =
      Call(&v1::Control::Stub::ListProcesses, request);
  EXPECT_EQ(page.processes_size(), 2);
  request.set_page_token(page.next_page_token());
  page = Call(&v1::Control::Stub::ListProcesses, request);
  ASSERT_EQ(page.processes_size(), 1);
  EXPECT_EQ(page.processes(0).name(), "sessions/s/processes/c");
  EXPECT_EQ(page.next_page_token(), "");
  request.Clear();
  request.set_session("sessions/other");
  EXPECT_EQ(Call(&v1::Control::Stub::ListProcesses, request).processes_size(),
            0);
}

TEST_F(ServerTest, TailsLogs) {
  Start("a", "prints", "one");
  WaitFor("a", v1::ProcessStatus::EXITED);
  v1::TailLogsRequest request;
  request.set_process("sessions/s/processes/a");
  EXPECT_EQ(TextOf(request), "one");
  request.set_cursor(2);
  EXPECT_EQ(TextOf(request), "e");

  grpc::ClientContext context;
  request.set_process("sessions/s/processes/b");
  request.set_follow(true);
  request.clear_cursor();
  Start("b", "sleeps_forever", "two");
  const auto reader = stub_->TailLogs(&context, request);
  v1::TailLogsResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.data(), "two\n");
  EXPECT_EQ(response.process(), "sessions/s/processes/b");
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServerTest, LogsLongerThanAnyBufferOnTheWayAreWhole) {
  v1::StartProcessRequest start;
  start.set_session("sessions/s");
  start.mutable_process()->set_name("seq");
  start.mutable_process()->set_binary("/usr/bin/seq");
  start.mutable_process()->add_args("100000");
  Call(&v1::Control::Stub::StartProcess, start);
  WaitFor("seq", v1::ProcessStatus::EXITED);
  v1::TailLogsRequest request;
  request.set_process("sessions/s/processes/seq");
  EXPECT_EQ(TextOf(request).size(), 588895);
}

TEST_F(ServerTest, RunsAScenarioInASessionOfItsOwn) {
  v1::RunScenarioRequest request;
  request.mutable_scenario()->set_file_name("x.textproto");
  request.mutable_scenario()->set_text(
      "process { name: \"a\" binary: \"//tests/testcases:prints\" args: \"hi\" "
      "} expect { process { name: \"a\" stdout { equals: \"hi\" } } }");
  grpc::ClientContext context;
  const auto reader = stub_->RunScenario(&context, request);
  v1::RunScenarioResponse event;
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(event.verdict().result(), v1::Verdict::PASSED);
  EXPECT_EQ(Call(&v1::Control::Stub::ListSessions, v1::ListSessionsRequest())
                .sessions_size(),
            0);
}

TEST_F(ServerTest, ARunEndsWithItsCaller) {
  v1::RunScenarioRequest request;
  request.mutable_scenario()->set_text(
      "name: \"x\" process { name: \"a\" "
      "binary: \"//tests/testcases:sleeps_forever\" args: \"up\" }");
  grpc::ClientContext watch_context;
  const auto watch = stub_->Watch(&watch_context, v1::WatchRequest());
  v1::WatchResponse change;
  ASSERT_TRUE(watch->Read(&change));
  grpc::ClientContext context;
  const auto reader = stub_->RunScenario(&context, request);
  v1::RunScenarioResponse event;
  while (reader->Read(&event) && !event.has_output()) {
  }
  context.TryCancel();
  while (watch->Read(&change) && !change.has_session_down()) {
  }
  EXPECT_THAT(change.session_down().name(), HasSubstr("sessions/x-"));
  watch_context.TryCancel();
}

TEST_F(ServerTest, RunConnectIsTheSameAsRun) {
  const std::string file = WriteTempFile(
      "remote.textproto",
      "process { name: \"a\" binary: \"//tests/testcases:exits_with\" args: "
      "\"1\" }");
  ParleyProcess parley(
      {"run", "--connect", directory_ + "/control.sock", file});
  EXPECT_EQ(parley.Join(), 1) << parley.err();
  EXPECT_THAT(parley.out(), HasSubstr("FAILED remote"));
  ParleyProcess nobody({"run", "--connect", "/no/such.sock", file});
  EXPECT_EQ(nobody.Join(), 3);
}

TEST_F(ServerTest, TheCommandLineIsAThinClient) {
  const std::string in = "--directory=" + directory_;
  ParleyProcess start(
      {"start", in, "s/a", "//tests/testcases:sleeps_forever", "--", "hello"});
  EXPECT_EQ(start.Join(), 0) << start.err();
  ParleyProcess ps({"ps", in});
  EXPECT_EQ(ps.Join(), 0);
  EXPECT_THAT(ps.out(), HasSubstr("s/a "));
  EXPECT_THAT(ps.out(), HasSubstr("READY"));
  ParleyProcess json({"ps", in, "--json"});
  EXPECT_EQ(json.Join(), 0);
  EXPECT_THAT(json.out(), HasSubstr("{\"name\":\"sessions/s/processes/a\""));
  ParleyProcess follow({"logs", in, "-f", "s/a"});
  EXPECT_EQ(follow.ReadLine(), "hello");
  ParleyProcess watch({"watch", in});
  EXPECT_THAT(watch.ReadLine(), HasSubstr("READY"));
  ParleyProcess stop({"stop", in, "s/a"});
  EXPECT_EQ(stop.Join(), 0);
  EXPECT_THAT(stop.out(), HasSubstr("EXITED by signal 15"));
  EXPECT_THAT(watch.ReadLine(), HasSubstr("STOPPING"));
  ParleyProcess again({"stop", in, "s/nobody"});
  EXPECT_EQ(again.Join(), 1);
  ParleyProcess nowhere({"ps", "--directory=/no/such"});
  EXPECT_EQ(nowhere.Join(), 3);
  EXPECT_THAT(nowhere.err(), HasSubstr("start `parley serve`"));
}

TEST_F(ServerTest, UpAndDown) {
  const std::string in = "--directory=" + directory_;
  ParleyProcess up({"up", in,
                    WriteTempFile("web.textproto",
                                  "process { name: \"a\" binary: "
                                  "\"//tests/testcases:sleeps_forever\" }")});
  EXPECT_EQ(up.Join(), 0) << up.err();
  EXPECT_EQ(up.out(), "sessions/web\n");
  ParleyProcess down({"down", in, "web"});
  EXPECT_EQ(down.Join(), 0) << down.err();
  EXPECT_EQ(Call(&v1::Control::Stub::ListSessions, v1::ListSessionsRequest())
                .sessions_size(),
            0);
}

TEST_F(ServerTest, AProcessIsHealthyWhileItIsReady) {
  EXPECT_EQ(CallByName("/grpc.health.v1.Health/Check", ""), kServing);
  Start("a", "sleeps_forever");
  const std::string request = HealthOf("sessions/s/processes/a");
  const std::string watch = "/grpc.health.v1.Health/Watch";
  EXPECT_EQ(CallByName(watch, request, kServing), kServing);
  StopProcess("a");
  EXPECT_EQ(CallByName(watch, request, kNotServing), kNotServing);
}

TEST_F(ServerTest, TellsWhatItServes) {
  EXPECT_THAT(CallByName("/grpc.reflection.v1alpha.ServerReflection/"
                         "ServerReflectionInfo",
                         std::string(":\0", 2)),
              testing::AllOf(HasSubstr("parley.control.v1.Control"),
                             HasSubstr("grpc.health.v1.Health"),
                             HasSubstr("grpc.channelz.v1.Channelz")));
}

TEST_F(ServerTest, AKilledServerIsReplacedAndNothingIsLost) {
  const pid_t pid = Start("a", "sleeps_forever").pid();
  const uint64_t revision =
      Call(&v1::Control::Stub::ListProcesses, v1::ListProcessesRequest())
          .revision();
  ASSERT_TRUE(server_->process().Kill().ok());
  EXPECT_EQ(server_->Join(), -SIGKILL);
  Serve();
  v1::GetProcessRequest get;
  get.set_name("sessions/s/processes/a");
  EXPECT_EQ(Call(&v1::Control::Stub::GetProcess, get).pid(), pid);

  grpc::ClientContext context;
  v1::WatchRequest resume;
  resume.set_after_revision(revision);
  const auto watch = stub_->Watch(&context, resume);
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  v1::WatchResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.process().exit().signal(), SIGKILL);
  context.TryCancel();
  watch->Finish();
}

TEST_F(ServerTest, StoppedItTakesEverythingWithIt) {
  const pid_t pid = Start("a", "sleeps_forever").pid();
  EXPECT_EQ(kill(pid, 0), 0);
  EXPECT_EQ(Stop(), 0);
  EXPECT_EQ(kill(pid, 0), -1);
  EXPECT_NE(access((directory_ + "/control.sock").c_str(), F_OK), 0);
  EXPECT_NE(access((directory_ + "/supervisor.sock").c_str(), F_OK), 0);
}

TEST_F(ServerTest, ADeadSupervisorEndsTheServer) {
  const pid_t pid = Start("a", "sleeps_forever").pid();
  const std::vector<pid_t> supervisor = ChildrenOf(server_->process().pid());
  ASSERT_EQ(supervisor.size(), 1);
  ASSERT_EQ(kill(supervisor[0], SIGKILL), 0);
  EXPECT_EQ(server_->Join(), 3);
  EXPECT_THAT(server_->err(), HasSubstr("the supervisor has died"));
  EXPECT_EQ(kill(pid, 0), -1);
  // The next one starts another.
  Serve();
  Call(&v1::Control::Stub::ListProcesses, v1::ListProcessesRequest());
}

}  // namespace
}  // namespace parley::control
