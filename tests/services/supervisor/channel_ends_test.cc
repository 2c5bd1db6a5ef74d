// When the real supervisor closes its own ends of the pipes of a session: late
// enough for a process that is still to come, early enough for one that waits
// for the end.
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/supervisor/supervisor.pb.h"
#include "tests/services/supervisor/running_supervisor.h"

namespace parley::supervisor {
namespace {

v1::ProcessSpec Reader() {
  v1::ProcessSpec reader = Process("reader", Testcase("reads_to_eof"));
  AddGrant(reader, "c", v1::READ);
  return reader;
}

v1::ProcessSpec Writer() {
  v1::ProcessSpec writer =
      Process("writer", "/bin/sh", {"-c", "echo written >&3"});
  AddGrant(writer, "c", v1::WRITE);
  return writer;
}

// Processes come by StartProcess, one after the other. The first was alone with
// a pipe whose other end was closed already, for want of a process to give it
// to: a reader saw the end at once, a writer EPIPE.
class LateProcessTest : public testing::Test {
 protected:
  void UpWith(const v1::ChannelSpec& channel) {
    v1::SessionSpec session = Session("s");
    *session.add_channels() = channel;
    ASSERT_TRUE(supervisor_.Up(session).ok());
  }
  void Start(const v1::ProcessSpec& process) {
    const auto started = supervisor_.StartProcess("s", process);
    ASSERT_TRUE(started.ok()) << started.status();
  }
  int ExitOf(const std::string& process) {
    const v1::ProcessInfo info =
        supervisor_.AwaitState("s", process, v1::EXITED);
    EXPECT_TRUE(info.exit().has_code()) << info.DebugString();
    return info.exit().code();
  }

  RunningSupervisor supervisor_;
};

TEST_F(LateProcessTest, AReaderWaitsForAWriterThatComesLater) {
  UpWith(Pipe("c"));
  Start(Reader());
  supervisor_.AwaitOutput("s", "reader", "reading\n");
  Start(Writer());
  EXPECT_EQ(ExitOf("reader"), 0);
  EXPECT_EQ(supervisor_.OutputOf("s", "reader"), "reading\nwritten\n");
}

TEST_F(LateProcessTest, WhatIsWrittenWaitsForAReaderThatComesLater) {
  UpWith(Pipe("c"));
  Start(Writer());
  EXPECT_EQ(ExitOf("writer"), 0);
  Start(Reader());
  EXPECT_EQ(ExitOf("reader"), 0);
  EXPECT_EQ(supervisor_.OutputOf("s", "reader"), "reading\nwritten\n");
}

TEST_F(LateProcessTest, TheSecondOfADuplexPipeComesLater) {
  UpWith(Pipe("c", /*duplex=*/true));
  v1::ProcessSpec reader = Process("reader", Testcase("reads_to_eof"));
  AddGrant(reader, "c", v1::READ_WRITE);
  Start(reader);
  supervisor_.AwaitOutput("s", "reader", "reading\n");
  v1::ProcessSpec writer = Writer();
  writer.mutable_grants(0)->set_role(v1::READ_WRITE);
  Start(writer);
  // It sees the end of the second.
  EXPECT_EQ(ExitOf("reader"), 0);
  EXPECT_EQ(supervisor_.OutputOf("s", "reader"), "reading\nwritten\n");
}

// A writer that waits for what never comes kept the pipe open, also while its
// session was stopped: a reader that would have ended by itself had to be
// killed.
TEST(StoppingTest, AReaderSeesTheEndWhileItsSessionStops) {
  RunningSupervisor supervisor;
  v1::SessionSpec session = Session("s");
  *session.add_channels() = Pipe("c");
  v1::ProcessSpec& reader = *session.add_processes();
  reader = Reader();
  // Beyond what a slow machine needs, within the test's time.
  reader.mutable_stop_grace()->set_seconds(20);
  v1::ProcessSpec& writer = *session.add_processes();
  writer = Writer();
  AddDependency(writer, "reader", v1::HAS_EXITED_OK);
  ASSERT_TRUE(supervisor.Up(session).ok());
  supervisor.AwaitOutput("s", "reader", "reading\n");

  ASSERT_TRUE(supervisor.Down("s").ok());
  const v1::ProcessInfo info = supervisor.AwaitState("s", "reader", v1::EXITED);
  EXPECT_EQ(info.exit().signal(), 0) << "it was killed";
  EXPECT_EQ(info.exit().code(), 0);
}

}  // namespace
}  // namespace parley::supervisor
