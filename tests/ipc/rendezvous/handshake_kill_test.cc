// Of two that shake hands one is killed, after each instruction of each of its
// steps; the other one is told at once, and whoever comes next gets in.
//
// Most of the instructions are those of libcrypto, which computes and speaks to
// nobody: of those, only some.
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/wait_any.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/connect.h"
#include "ipc/rendezvous/listener.h"
#include "tests/ipc/rendezvous/raw_client.h"
#include "tests/ipc/rendezvous/temp_directory.h"
#include "tests/testing/child.h"
#include "tests/testing/kill_points.h"
#include "tests/testing/process_state.h"
#include "tests/testing/status_matchers.h"

namespace ipc::rendezvous {
namespace {

using ::absl::StatusCode;
using ::ipc::pipe::Connection;
using ::ipc::testing::Child;
using ::testing::AnyOf;
using ::testing::HasSubstr;

// A survivor that waits longer hangs.
constexpr absl::Duration kPatience = absl::Seconds(20);

// In a build that is not optimised there are too many points to try all; of
// those of a whole Connect in any.
#ifdef NDEBUG
constexpr int kStride = 1;
constexpr int kConnectStride = 31;
constexpr int kCryptoStride = 211;
#else
constexpr int kStride = 101;
constexpr int kConnectStride = 499;
constexpr int kCryptoStride = 4999;
#endif

PeerPolicy Policy() {
  PeerPolicy policy;
  policy.auth_key = "key";
  return policy;
}

absl::StatusOr<Connection> ConnectTo(const Address& address) {
  return Connect(address, {.policy = Policy(), .timeout = kPatience});
}

absl::StatusOr<Listener> ListenAt(const Address& address) {
  return Listener::Listen(address,
                          {.policy = Policy(), .handshake_timeout = kPatience});
}

// One who has the key gets in, whatever else has happened.
void ExpectThatAnotherGetsIn(Listener& listener) {
  RawClient client(listener.address(), *Policy().auth_key);
  while (true) {
    ASSERT_THAT(WaitAny({&listener, &client.connection()}, kPatience), IsOk());
    client.Step();
    ASSERT_THAT(client.status(), IsOk());
    const auto accepted = listener.Accept(absl::ZeroDuration());
    if (accepted.ok() && client.done()) break;
    // The dead one may have got in before, or be noticed now.
    ASSERT_TRUE(accepted.ok() || Listener::IsAboutAClient(accepted.status()) ||
                absl::IsDeadlineExceeded(accepted.status()))
        << accepted.status();
  }
}

class HandshakeCase : public testing::KillPointCase {
 protected:
  HandshakeCase() {
    // What libcrypto does only once in a process has been done.
    static const bool is_warm = [&] {
      auto listener = ListenAt(address());
      EXPECT_THAT(listener, IsOk());
      ExpectThatAnotherGetsIn(*listener);
      return true;
    }();
    (void)is_warm;
  }

  Address address() const { return Address::Unix(directory_.Path("s")); }

 private:
  TempDirectory directory_;
};

// The client is killed, while connecting and in its part of the handshake; the
// listener does its own whenever the client waits for it.
class ConnectCase : public HandshakeCase {
 public:
  ConnectCase() : listener_(*ListenAt(address())) {}
  void Operate() override { (void)ConnectTo(address()); }
  bool Wake() override {
    auto accepted = listener_.Accept(absl::ZeroDuration());
    if (accepted.ok()) accepted_.emplace(*std::move(accepted));
    return true;
  }
  void Check(const testing::KillPoint&) override {
    if (!accepted_.has_value()) {
      auto accepted = listener_.Accept(absl::ZeroDuration());
      if (accepted.ok()) {
        accepted_.emplace(*std::move(accepted));
      } else {
        // It had not even connected, or went away.
        ASSERT_THAT(accepted, AnyOf(StatusIs(StatusCode::kDeadlineExceeded,
                                             HasSubstr("nobody")),
                                    StatusIs(StatusCode::kUnauthenticated,
                                             HasSubstr("went away"))));
      }
    }
    // Whether it was let in before it died or not.
    if (accepted_.has_value()) {
      ASSERT_THAT(accepted_->Receive(kPatience),
                  StatusIs(StatusCode::kOutOfRange, HasSubstr("")));
    }
    ExpectThatAnotherGetsIn(listener_);
  }

 private:
  Listener listener_;
  std::optional<Connection> accepted_;
};

// The listener is killed in one step, which begins when `taken` messages of the
// client were taken and the next is there. The client is another process, which
// does not run meanwhile, so that a step takes one message and no more.
class ListenerStepCase : public HandshakeCase {
 public:
  // What the client returns if it was in, besides the code of a status.
  static constexpr int kWasIn = 100;
  // Of its messages, the first of which is that it connects.
  static constexpr int kSteps = 4;

  explicit ListenerStepCase(int taken)
      : taken_(taken), client_(Child::Fork([&](Child::Side side) {
          side.Hear();
          auto connection = ConnectTo(address());
          if (!connection.ok()) {
            return static_cast<int>(connection.status().code());
          }
          const auto message = connection->Receive(kPatience);
          return kWasIn + static_cast<int>(message.status().code());
        })) {}

  void Prepare() override {
    listener_.emplace(*ListenAt(address()));
    client_.Tell();
    for (int i = 0;; ++i) {
      if (!WaitAny({&*listener_}).ok()) _exit(1);
      kill(client_.pid(), SIGSTOP);
      while (testing::ProcessState(client_.pid()) != 'T') sched_yield();
      if (i == taken_) break;
      if (!absl::IsDeadlineExceeded(
              listener_->Accept(absl::ZeroDuration()).status())) {
        _exit(2);
      }
      kill(client_.pid(), SIGCONT);
    }
  }
  void Operate() override { (void)listener_->Accept(absl::ZeroDuration()); }
  void Check(const testing::KillPoint&) override {
    client_.Continue();
    constexpr int kUnavailable = static_cast<int>(StatusCode::kUnavailable);
    constexpr int kOutOfRange = static_cast<int>(StatusCode::kOutOfRange);
    if (taken_ + 1 < kSteps) {
      ASSERT_EQ(client_.Wait(), kUnavailable);
    } else {
      // It has accepted the listener, and as far as it knows is accepted.
      ASSERT_THAT(client_.Wait(),
                  AnyOf(kWasIn + kUnavailable, kWasIn + kOutOfRange));
    }
    auto next = ListenAt(address());
    ASSERT_THAT(next, IsOk());
    ExpectThatAnotherGetsIn(*next);
  }

 private:
  const int taken_;
  Child client_;
  std::optional<Listener> listener_;  // the victim's
};

void Kill(
    const std::string& name, int stride,
    const std::function<std::unique_ptr<testing::KillPointCase>()>& make) {
  const testing::KillPointReport report = testing::KillAtEveryInstruction(
      make, stride, {.library = "libcrypto", .stride = kCryptoStride});
  printf(
      "%s: %d kill points, every %d. instruction, %d. in libcrypto (%d "
      "asleep, %d missed)\n",
      name.c_str(), report.points, stride, kCryptoStride, report.asleep,
      report.astray);
  EXPECT_GT(report.points, 2);
  EXPECT_EQ(report.completed, 1);
}

TEST(HandshakeKillTest, Client) {
  Kill("Client", kConnectStride,
       [] { return std::make_unique<ConnectCase>(); });
}

class ListenerKillTest : public ::testing::TestWithParam<int> {};

std::string StepName(const ::testing::TestParamInfo<int>& info) {
  const char* const names[] = {"Challenges", "Welcomes", "Responds", "LetsIn"};
  return names[info.param];
}

INSTANTIATE_TEST_SUITE_P(Steps, ListenerKillTest,
                         ::testing::Range(0, ListenerStepCase::kSteps),
                         &StepName);

TEST_P(ListenerKillTest, Listener) {
  Kill(absl::StrCat("Listener, after ", GetParam(), " messages"), kStride,
       [] { return std::make_unique<ListenerStepCase>(GetParam()); });
}

}  // namespace
}  // namespace ipc::rendezvous
