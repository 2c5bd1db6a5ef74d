// Children that a listening process forks have nothing of its Listener.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/connect.h"
#include "ipc/rendezvous/listener.h"
#include "tests/ipc/rendezvous/raw_client.h"
#include "tests/ipc/rendezvous/temp_directory.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::rendezvous {
namespace {

using ::absl::StatusCode;
using ::ipc::testing::Child;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Who waits longer hangs.
constexpr absl::Duration kPatience = absl::Seconds(20);

ListenerOptions WithKey() {
  ListenerOptions options;
  options.policy.auth_key = "k";
  options.handshake_timeout = absl::InfiniteDuration();
  return options;
}

class ListenerForkTest : public ::testing::Test {
 protected:
  Address address() const { return Address::Unix(directory_.Path("s")); }

  TempDirectory directory_;
};

// It was killed, and a child of its lives on: that is no listener, and keeps
// nobody waiting, nor the next one from listening.
TEST_F(ListenerForkTest, WhenItsProcessIsKilledItsChildrenDoNotMatter) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  // Ends when the grandchild does.
  const UniqueFd grandchild(fds[0]);
  UniqueFd of_grandchild(fds[1]);
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  // And that when this is closed.
  const UniqueFd stop_reader(fds[0]);
  UniqueFd stop(fds[1]);
  Child child = Child::Fork([&](Child::Side side) {
    stop.Reset();
    auto listener = Listener::Listen(address(), WithKey());
    if (!listener.ok()) return 1;
    side.Tell();
    side.Hear();
    // One is challenged, the other one waits in the backlog.
    if (!absl::IsDeadlineExceeded(
            listener->Accept(absl::ZeroDuration()).status())) {
      return 2;
    }
    side.Tell();
    side.Hear();
    if (fork() == 0) {
      char byte;
      _exit(static_cast<int>(read(stop_reader.get(), &byte, 1)));
    }
    side.Tell();
    return pause();
  });
  of_grandchild.Reset();
  ASSERT_TRUE(child.Hear());
  RawClient challenged(address(), "k");
  child.Tell();
  ASSERT_TRUE(child.Hear());
  RawClient waiting(address(), "k");
  child.Tell();
  ASSERT_TRUE(child.Hear());
  child.Kill();
  EXPECT_EQ(child.Wait(), -SIGKILL);
  pollfd end = {.fd = grandchild.get(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&end, 1, 0), 0) << "the grandchild has ended";

  EXPECT_THAT(challenged.connection().Receive(kPatience),
              IsOkAndHolds(HasSubstr("#CHALLENGE#")));
  EXPECT_THAT(challenged.connection().Receive(kPatience),
              StatusIs(StatusCode::kOutOfRange, HasSubstr("")));
  EXPECT_FALSE(waiting.connection().Receive(kPatience).ok());
  EXPECT_THAT(Connect(address()),
              StatusIs(StatusCode::kUnavailable, HasSubstr("")));
  auto next = Listener::Listen(address(), WithKey());
  EXPECT_THAT(next, IsOk());
  EXPECT_EQ(poll(&end, 1, 0), 0) << "the grandchild has ended";
}

TEST_F(ListenerForkTest, AChildHasNothingOfIt) {
  auto listener = Listener::Listen(address(), WithKey());
  ASSERT_THAT(listener, IsOk());
  const int number = listener->poll_fd();
  RawClient client(address(), "k");
  ASSERT_THAT(listener->Accept(absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  Child child = Child::Fork([&] {
    Listener inherited = *std::move(listener);
    if (!absl::IsFailedPrecondition(inherited.Accept().status())) return 1;
    if (inherited.poll_fd() != -1) return 2;
    if (fcntl(number, F_GETFD) != -1) return 3;
    if (inherited.address() != address()) return 4;
    // A grandchild neither.
    Child grandchild = Child::Fork([&] {
      return absl::IsFailedPrecondition(inherited.Accept().status()) ? 0 : 1;
    });
    return grandchild.Wait() == 0 ? 0 : 5;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_THAT(directory_.Names(), ElementsAre("s", "s.lock"));
  // And here the handshake goes on.
  while (client.Step() || !client.done()) {
    ASSERT_THAT(client.status(), IsOk());
    if (listener->Accept(absl::ZeroDuration()).ok()) break;
  }
  EXPECT_TRUE(client.done());
}

}  // namespace
}  // namespace ipc::rendezvous
