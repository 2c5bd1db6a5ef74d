// A timer fires every 100 us, and its handler does not ask for system calls to
// be restarted: all that can return EINTR does.
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/connect.h"
#include "ipc/rendezvous/listener.h"
#include "tests/ipc/rendezvous/temp_directory.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::rendezvous {
namespace {

using ::absl::StatusCode;
using ::ipc::pipe::Connection;
using ::ipc::testing::Child;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Minutes(2);
constexpr absl::Duration kShort = absl::Milliseconds(50);

std::atomic<int> interruptions = 0;

void Handle(int signal) {
  struct sigaction action = {};
  action.sa_handler = [](int) {
    interruptions.fetch_add(1, std::memory_order_relaxed);  // a statistic
  };
  ASSERT_EQ(sigaction(signal, &action, nullptr), 0);
}

// Of this process: a timer is not inherited.
void SetStorm(bool blows) {
  const itimerval storm = {{0, blows ? 100 : 0}, {0, blows ? 100 : 0}};
  ASSERT_EQ(setitimer(ITIMER_REAL, &storm, nullptr), 0);
}

class InterruptedTest : public ::testing::TestWithParam<Address::Kind> {
 protected:
  void SetUp() override {
    interruptions = 0;
    Handle(SIGALRM);
  }

  Address any() const {
    return GetParam() == Address::Kind::kTcp
               ? Address::Tcp("127.0.0.1", 0)
               : Address::Unix(directory_.Path("s"));
  }
  static ListenerOptions ForListener() {
    ListenerOptions options;
    options.policy.auth_key = "k";
    options.handshake_timeout = kLong;
    return options;
  }
  static ConnectOptions ForClient() {
    ConnectOptions options;
    options.policy.auth_key = "k";
    options.timeout = kLong;
    return options;
  }

  TempDirectory directory_;
};

INSTANTIATE_TEST_SUITE_P(Families, InterruptedTest,
                         ::testing::Values(Address::Kind::kUnix,
                                           Address::Kind::kTcp),
                         [](const auto& info) -> std::string {
                           return info.param == Address::Kind::kTcp ? "Tcp"
                                                                    : "Unix";
                         });

void ExpectThatThereWasAStorm() {
  SetStorm(false);
#if !defined(ABSL_HAVE_THREAD_SANITIZER)  // It calls handlers when it pleases.
  EXPECT_GT(interruptions, 10) << "there was no storm";
#endif
}

// CPython's test_ignore_listener: a signal while it waits for a client, and one
// while that waits for the answer.
TEST_P(InterruptedTest, IgnoreListener) {
  Handle(SIGUSR1);
  auto ready = Connection::CreatePair();
  Child child = Child::Fork([&](Child::Side side) {
    auto listener = Listener::Listen(any(), ForListener());
    if (!listener.ok() ||
        !ready->second.Send(listener->address().ToString()).ok()) {
      return 1;
    }
    auto connection = listener->Accept();
    if (!connection.ok() || !connection->Send("welcome").ok()) return 2;
    side.Tell();
    return interruptions > 0 ? 0 : 3;
  });
  const auto address = Address::Parse(*ready->first.Receive(kLong));
  ASSERT_THAT(address, IsOk());
  child.AwaitSleep();
  ASSERT_EQ(kill(child.pid(), SIGUSR1), 0);
  auto client = Connect(*address, ForClient());
  ASSERT_THAT(client, IsOk());
  EXPECT_THAT(client->Receive(kLong), IsOkAndHolds("welcome"));
  EXPECT_TRUE(child.Hear());
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(InterruptedTest, ListenConnectAndAccept) {
  SetStorm(true);
  auto listener = Listener::Listen(any(), ForListener());
  ASSERT_THAT(listener, IsOk());
  constexpr int kClients = 50;
  Child child = Child::Fork([&] {
    SetStorm(true);
    for (int i = 0; i < kClients; ++i) {
      auto connection = Connect(listener->address(), ForClient());
      if (!connection.ok()) return 1;
      if (!connection->Send("hello").ok()) return 2;
      if (*connection->Receive(kLong) != "hello") return 3;
    }
    return 0;
  });
  for (int i = 0; i < kClients; ++i) {
    auto accepted = listener->Accept(kLong);
    ASSERT_THAT(accepted, IsOk());
    ASSERT_THAT(accepted->Receive(kLong), IsOkAndHolds("hello"));
    ASSERT_THAT(accepted->Send("hello"), IsOk());
  }
  EXPECT_EQ(child.Wait(), 0);
  ExpectThatThereWasAStorm();
}

TEST_P(InterruptedTest, TimeoutsAreNeitherShortenedNorForgotten) {
  auto listener = Listener::Listen(any(), ForListener());
  ASSERT_THAT(listener, IsOk());
  SetStorm(true);
  absl::Time begin = absl::Now();
  EXPECT_THAT(listener->Accept(kShort),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("nobody")));
  EXPECT_GE(absl::Now() - begin, kShort);
  ConnectOptions options = ForClient();
  options.timeout = kShort;
  begin = absl::Now();
  EXPECT_THAT(Connect(listener->address(), options),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("handshake")));
  EXPECT_GE(absl::Now() - begin, kShort);
  ExpectThatThereWasAStorm();
}

// Whoever finds it full sleeps in connect(2).
TEST_P(InterruptedTest, AFullBacklog) {
  if (GetParam() == Address::Kind::kTcp) return;  // whose clients wait in poll
  auto listener = Listener::Listen(any(), {.backlog = 0});
  ASSERT_THAT(listener, IsOk());
  const Address address = listener->address();
  SetStorm(true);
  std::vector<Connection> waiting;
  while (true) {
    const absl::Time begin = absl::Now();
    auto client = Connect(address, {.timeout = kShort});
    if (!client.ok()) {
      EXPECT_THAT(client,
                  StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("accept")));
      EXPECT_GE(absl::Now() - begin, kShort);
      break;
    }
    waiting.push_back(*std::move(client));
    ASSERT_LT(waiting.size(), 100u);
  }
  ExpectThatThereWasAStorm();
  Child child = Child::Fork([&] {
    SetStorm(true);
    return Connect(address, {.timeout = kLong}).ok() ? 0 : 1;
  });
  SetStorm(true);
  for (size_t i = 0; i < waiting.size() + 1; ++i) {
    EXPECT_THAT(listener->Accept(kLong), IsOk());
  }
  EXPECT_EQ(child.Wait(), 0);
  SetStorm(false);
}

}  // namespace
}  // namespace ipc::rendezvous
