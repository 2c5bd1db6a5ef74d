// Sessions of the real supervisor: how they come and go.
#include <signal.h>
#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/supervisor/client.h"
#include "services/supervisor/supervisor.pb.h"
#include "tests/services/supervisor/running_supervisor.h"

namespace parley::supervisor {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A session was bound to its client by name. So a client that had left its
// session to somebody else, who took it down and began another of that name,
// took the other's session with it when it went.
TEST(SessionsTest, AClientThatGoesTakesItsOwnSessionsOnly) {
  RunningSupervisor supervisor;
  std::unique_ptr<Client> first = supervisor.Connect();
  ASSERT_TRUE(Up(*first, Session("s"), /*bound_to_connection=*/true).ok());
  // Its end, later, shows that the end of the client was noticed.
  ASSERT_TRUE(Up(*first, Session("own"), /*bound_to_connection=*/true).ok());
  ASSERT_TRUE(supervisor.Down("s").ok());
  v1::SessionSpec others = Session("s");
  *others.add_processes() = Process("p", Testcase("sleeps_forever"));
  ASSERT_TRUE(supervisor.Up(others).ok());

  first.reset();
  supervisor.Await([](const v1::ServerMessage& message) {
    return message.event().session_down().name() == "own";
  });
  const v1::ListResponse list = supervisor.List();
  ASSERT_EQ(list.sessions_size(), 1);
  EXPECT_EQ(list.sessions(0).name(), "s");
  EXPECT_FALSE(list.sessions(0).stopping());
}

// Such processes waited for each other for ever, and the session could not even
// be taken down: each was still needed by another.
TEST(SessionsTest, ACircleOfDependenciesIsRefusedAndNamed) {
  RunningSupervisor supervisor;
  v1::ProcessSpec a = Process("a", Testcase("sleeps_forever"));
  v1::ProcessSpec b = a, c = a;
  b.set_name("b");
  c.set_name("c");
  AddDependency(a, "b", v1::IS_STARTED);
  AddDependency(b, "c", v1::IS_STARTED);
  v1::ProcessSpec c_of_circle = c;
  AddDependency(c_of_circle, "b", v1::IS_STARTED);
  v1::SessionSpec session = Session("s");
  for (const auto& process : {a, b, c_of_circle}) {
    *session.add_processes() = process;
  }
  const absl::Status refused = supervisor.Up(session);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("b -> c -> b"));
  EXPECT_EQ(supervisor.List().sessions_size(), 0);

  // One that ends can be started again in another way: all the others run.
  *session.mutable_processes(2) = c;
  ASSERT_TRUE(supervisor.Up(session).ok());
  supervisor.AwaitState("s", "a", v1::READY);
  ASSERT_TRUE(supervisor.StopProcess("s", "c", kPatience).ok());
  AddDependency(c, "a", v1::IS_STARTED);
  EXPECT_THAT(supervisor.StartProcess("s", c).status().message(),
              HasSubstr("a -> b -> c -> a"));
  v1::ProcessSpec itself = Process("d", Testcase("sleeps_forever"));
  AddDependency(itself, "d", v1::IS_STARTED);
  EXPECT_THAT(supervisor.StartProcess("s", itself).status().message(),
              HasSubstr("d -> d"));
  EXPECT_EQ(supervisor.List().processes_size(), 3);
  EXPECT_TRUE(supervisor.Down("s").ok());
}

// The first of two variables of one name counts, and a spec's came first: a
// process was told of another's channels, or said READY to somebody else.
TEST(SessionsTest, WhatTheSupervisorTellsAProcessIsNotForItsSpecToSay) {
  RunningSupervisor supervisor;
  for (const std::string name :
       {"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID",
        "LISTEN_FDS=9", ""}) {
    SCOPED_TRACE(name);
    v1::ProcessSpec process = Process("p", Testcase("sleeps_forever"));
    (*process.mutable_env())[name] = "1";
    v1::SessionSpec session = Session("s");
    *session.add_processes() = process;
    for (const absl::Status& refused :
         {supervisor.Up(session),
          supervisor.StartProcess("s", process).status()}) {
      EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(refused.message(),
                  AllOf(HasSubstr("process p"), HasSubstr(name)));
    }
  }
  v1::ProcessSpec process = Process("p", "/usr/bin/env");
  (*process.mutable_env())["LISTEN_ADDRESS"] = "its own affair";
  ASSERT_TRUE(supervisor.StartProcess("s", process).ok());
  supervisor.AwaitState("s", "p", v1::EXITED);
  EXPECT_THAT(supervisor.OutputOf("s", "p"),
              HasSubstr("LISTEN_ADDRESS=its own affair\n"));
}

// A process that was stopped counted as having done what it was to do, if it
// exits with 0 when it is asked to, as is polite.
TEST(SessionsTest, AProcessThatWasStoppedHasNotExitedOk) {
  RunningSupervisor supervisor;
  v1::SessionSpec session = Session("s");
  *session.add_processes() = Process("first", Testcase("exits_on_sigterm"));
  v1::ProcessSpec& then = *session.add_processes();
  then = Process("then", Testcase("sleeps_forever"));
  AddDependency(then, "first", v1::HAS_EXITED_OK);
  ASSERT_TRUE(supervisor.Up(session).ok());
  supervisor.AwaitOutput("s", "first", "up\n");
  const auto stopped = supervisor.StopProcess("s", "first", kPatience);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_TRUE(stopped->exit().has_code());
  EXPECT_EQ(stopped->exit().code(), 0);

  const v1::ServerMessage next =
      supervisor.Await([](const v1::ServerMessage& message) {
        const v1::ProcessInfo& info = message.event().process();
        return info.name() == "then" && info.state() != v1::PENDING;
      });
  EXPECT_EQ(next.event().process().state(), v1::FAILED);
  EXPECT_EQ(next.event().process().error(),
            "depends on first (HAS_EXITED_OK), which was stopped");
}

TEST(SessionsTest, OneThatDependsOnWhatWasNotReadyInTimeSaysSo) {
  RunningSupervisor supervisor;
  v1::SessionSpec session = Session("s");
  v1::ProcessSpec& first = *session.add_processes();
  first = Process("first", Testcase("sleeps_forever"));
  first.mutable_ready_timeout()->set_nanos(1'000'000);
  v1::ProcessSpec& then = *session.add_processes();
  then = Process("then", Testcase("sleeps_forever"));
  AddDependency(then, "first", v1::IS_READY);
  ASSERT_TRUE(supervisor.Up(session).ok());
  EXPECT_EQ(supervisor.AwaitState("s", "then", v1::FAILED).error(),
            "depends on first (IS_READY), which was stopped, since it did not "
            "say that it is ready (READY=1) within 1ms");
}

// Stopping one that had ended, but whose output was still open, set the timer
// of its grace time, which then killed the process that had been started in its
// place.
TEST(SessionsTest, TheGraceOfAProcessEndsWithIt) {
  RunningSupervisor supervisor;
  v1::SessionSpec session = Session("s");
  *session.add_channels() = Pipe("c");
  v1::ProcessSpec& process = *session.add_processes();
  process = Process("p", Testcase("leaves_output_open"));
  AddGrant(process, "c", v1::READ);
  ASSERT_TRUE(supervisor.Up(session).ok());
  const pid_t pid = supervisor.AwaitState("s", "p", v1::READY).pid();
  // Until it is reaped.
  while (kill(pid, 0) == 0) supervisor.List();

  constexpr absl::Duration kGrace = absl::Seconds(1);
  const std::unique_ptr<Client> stopper = supervisor.Connect();
  v1::ClientMessage stop;
  stop.mutable_stop_process()->set_session("s");
  stop.mutable_stop_process()->set_process("p");
  stop.mutable_stop_process()->mutable_grace()->set_seconds(
      absl::ToInt64Seconds(kGrace));
  // Sent, and answered later.
  EXPECT_EQ(stopper->Call(stop, absl::ZeroDuration()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  v1::ClientMessage list;
  list.mutable_list();
  EXPECT_EQ(stopper->Call(list, kPatience)->list().processes(0).state(),
            v1::STOPPING);

  // Its output ends as the pipe does: nobody writes to it any more.
  v1::ProcessSpec writer = Process("writer", "/bin/true");
  AddGrant(writer, "c", v1::WRITE);
  ASSERT_TRUE(supervisor.StartProcess("s", writer).ok());
  supervisor.AwaitState("s", "p", v1::EXITED);
  const auto again = supervisor.StartProcess(
      "s", Process("p", "/bin/sleep",
                   {std::to_string(2 * absl::ToInt64Seconds(kGrace))}));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->generation(), 2u);
  const v1::ProcessInfo end = supervisor.AwaitState("s", "p", v1::EXITED);
  EXPECT_EQ(end.exit().signal(), 0);
  EXPECT_TRUE(end.exit().has_code());
}

}  // namespace
}  // namespace parley::supervisor
