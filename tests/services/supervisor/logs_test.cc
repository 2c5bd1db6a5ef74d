// What subscribers of the real supervisor are told of the output of processes.
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/supervisor/client.h"
#include "services/supervisor/supervisor.pb.h"
#include "tests/services/supervisor/running_supervisor.h"

namespace parley::supervisor {
namespace {

v1::SessionSpec SessionOf(const v1::ProcessSpec& process) {
  v1::SessionSpec session = Session("s");
  *session.add_processes() = process;
  return session;
}

v1::ProcessSpec Prints(const std::string& text) {
  return Process("p", Testcase("prints"), {text});
}

// Ups, waits until it has ended, and takes it down.
void RunToTheEnd(RunningSupervisor& supervisor,
                 const v1::ProcessSpec& process) {
  ASSERT_TRUE(supervisor.Up(SessionOf(process)).ok());
  supervisor.AwaitState("s", "p", v1::EXITED);
  ASSERT_TRUE(supervisor.Down("s").ok());
}

// What `client` is pushed until the output ends in `end`: "up ", "exited ",
// "down ", and of the output each run of the same letter as that letter and the
// number of them, "a1000 ".
std::string TellUntil(Client& client, char end) {
  std::string told;
  char last = '\0';
  size_t run = 0;
  uint64_t next_cursor = 0;
  const auto finish_run = [&] {
    if (run > 0) told += last + std::to_string(run) + " ";
    run = 0;
  };
  while (last != end) {
    const absl::StatusOr<v1::ServerMessage> message = client.Next(kPatience);
    if (!message.ok()) return told + std::string(message.status().message());
    const v1::Event& event = message->event();
    if (event.has_session_up() || event.has_session_down() ||
        event.process().state() == v1::EXITED) {
      finish_run();
    }
    if (event.has_session_up()) told += "up ";
    if (event.has_session_down()) told += "down ";
    if (event.process().state() == v1::EXITED) told += "exited ";
    if (!message->has_log()) continue;
    EXPECT_EQ(message->log().dropped(), 0u);
    if (message->log().cursor() != 0) {
      EXPECT_EQ(message->log().cursor(), next_cursor);
    }
    next_cursor = message->log().cursor() + message->log().data().size();
    for (const char c : message->log().data()) {
      if (c != last) finish_run();
      last = c;
      ++run;
    }
  }
  finish_run();
  return told;
}

// More than the sockets and the queue of a client hold, so that it is still in
// the log when the next session comes; and less than a log keeps.
constexpr int kMuch = 1'000'000;

v1::ProcessSpec PrintsMuch() {
  return Process("p", "/bin/sh",
                 {"-c", "head -c 1000000 /dev/zero | tr '\\0' a"});
}

// The place in the log of a process was kept by its name: when another of this
// name came, the rest of what the first had printed was forgotten.
TEST(LogsTest, ASlowReaderGetsAllOfASessionBeforeTheNextOfThatName) {
  RunningSupervisor supervisor;
  std::unique_ptr<Client> slow = supervisor.Connect();
  v1::SubscribeRequest request;
  request.set_events(true);
  request.set_logs(true);
  ASSERT_TRUE(Subscribe(*slow, request).ok());
  RunToTheEnd(supervisor, PrintsMuch());
  RunToTheEnd(supervisor, Prints("b"));
  RunToTheEnd(supervisor, Prints("c"));
  EXPECT_EQ(TellUntil(*slow, 'c'), "up a" + std::to_string(kMuch) +
                                       " exited down up b1 exited down up c1 ");
}

TEST(LogsTest, SoDoesOneThatWantsNoEvents) {
  RunningSupervisor supervisor;
  std::unique_ptr<Client> slow = supervisor.Connect();
  v1::SubscribeRequest request;
  request.set_logs(true);
  request.set_session("s");
  ASSERT_TRUE(Subscribe(*slow, request).ok());
  RunToTheEnd(supervisor, PrintsMuch());
  RunToTheEnd(supervisor, Prints("b"));
  EXPECT_EQ(TellUntil(*slow, 'b'), "a" + std::to_string(kMuch) + " b1 ");
}

// The cursor of a subscription was also taken for logs that came later, whose
// beginning was then lost.
TEST(LogsTest, ACursorIsOfTheLogThatWasThere) {
  RunningSupervisor supervisor;
  ASSERT_TRUE(supervisor.Up(SessionOf(Prints("aaa"))).ok());
  supervisor.AwaitState("s", "p", v1::EXITED);
  std::unique_ptr<Client> client = supervisor.Connect();
  std::unique_ptr<Client> of_another = supervisor.Connect();
  v1::SubscribeRequest request;
  request.set_logs(true);
  request.set_session("s");
  request.set_log_cursor(2);
  ASSERT_TRUE(Subscribe(*client, request).ok());
  // From before this session: nothing would come until this log is as long.
  request.set_log_cursor(1000);
  ASSERT_TRUE(Subscribe(*of_another, request).ok());
  ASSERT_TRUE(supervisor.Down("s").ok());
  RunToTheEnd(supervisor, Prints("bbb"));
  absl::StatusOr<v1::ServerMessage> rest = client->Next(kPatience);
  ASSERT_TRUE(rest.ok()) << rest.status();
  EXPECT_EQ(rest->log().cursor(), 2u);
  EXPECT_EQ(rest->log().data(), "a");
  EXPECT_EQ(TellUntil(*client, 'b'), "b3 ");
  EXPECT_EQ(TellUntil(*of_another, 'b'), "a3 b3 ");
}

}  // namespace
}  // namespace parley::supervisor
