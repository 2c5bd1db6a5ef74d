// What a process says of itself (STATUS= of sd_notify), in the real supervisor.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/supervisor/supervisor.pb.h"
#include "tests/services/supervisor/running_supervisor.h"

namespace parley::supervisor {
namespace {

// Each notification was an event, even one that said nothing new. A process
// that tells its progress a few thousand times a second soon was all that the
// history had left.
TEST(StatusTest, AFloodIsToldInFewEventsAndToItsLast) {
  constexpr int kNotifications = 20'000;
  const std::string last = absl::StrCat(kNotifications);
  RunningSupervisor supervisor;
  v1::SessionSpec session = Session("s");
  *session.add_processes() = Process("p", Testcase("floods_status"), {last});
  ASSERT_TRUE(supervisor.Up(session).ok());
  int events = 0, same = 0;
  supervisor.Await([&](const v1::ServerMessage& message) {
    const v1::ProcessInfo& process = message.event().process();
    events += !process.status_text().empty();
    same += process.status_text() == "same";
    return process.status_text() == last;
  });
  EXPECT_EQ(same, 1);
  // Far from one each, however slow the machine.
  EXPECT_LT(events, kNotifications / 10);

  // And a change of the state tells of it too.
  const auto stopped = supervisor.StopProcess("s", "p", kPatience);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->status_text(), last);
}

}  // namespace
}  // namespace parley::supervisor
