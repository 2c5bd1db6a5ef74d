// Sessions of the real supervisor: how they come and go.
#include <memory>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/supervisor/supervisor.pb.h"
#include "tests/services/supervisor/running_supervisor.h"

namespace parley::supervisor {
namespace {

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

}  // namespace
}  // namespace parley::supervisor
