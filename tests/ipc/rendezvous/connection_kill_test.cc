// A process is killed after each instruction of connecting and of accepting;
// whoever is left finds out, and goes on. Sending is in
// tests/ipc/pipe/connection_send_kill_test.cc.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/connect.h"
#include "ipc/rendezvous/listener.h"
#include "tests/ipc/rendezvous/temp_directory.h"
#include "tests/testing/child.h"
#include "tests/testing/kill_points.h"
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

// In a build that is not optimised there are too many points to try all.
#ifdef NDEBUG
constexpr int kStride = 1;
constexpr int kCoarse = 61;  // of forty thousand, each with a handshake
#else
constexpr int kStride = 23;
constexpr int kCoarse = 499;
#endif

void Report(const char* name, const testing::KillPointReport& report,
            int stride) {
  printf("%s: %d kill points, every %d. instruction (%d asleep, %d missed)\n",
         name, report.points, stride, report.asleep, report.astray);
  EXPECT_GT(report.points, 2);
  EXPECT_EQ(report.completed, 1);
}

// ---- Connecting and accepting.

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

class RendezvousCase : public testing::KillPointCase {
 protected:
  Address address() const { return Address::Unix(directory_.Path("s")); }

  // A client that behaves gets in, whatever else has happened.
  void ExpectThatAnotherGetsIn(Listener& listener) {
    Child child = Child::Fork([&] {
      auto connection = ConnectTo(address());
      return connection.ok() && connection->Send("hello").ok() ? 0 : 1;
    });
    while (true) {
      auto accepted = listener.Accept(kPatience);
      if (!accepted.ok() && Listener::IsAboutAClient(accepted.status())) {
        continue;
      }
      ASSERT_THAT(accepted, IsOk());
      // The dead one may have got in as well.
      const auto message = accepted->Receive(kPatience);
      if (!message.ok()) continue;
      ASSERT_EQ(*message, "hello");
      break;
    }
    ASSERT_EQ(child.Wait(), 0);
  }

  TempDirectory directory_;
};

// The client is killed, while connecting and in its part of the handshake; the
// listener does its own whenever the client waits for it.
class ConnectCase : public RendezvousCase {
 public:
  ConnectCase() : listener_(*ListenAt(address())) {}
  void Operate() override { (void)ConnectTo(address()); }
  bool Wake() override {
    auto accepted = listener_.Accept(absl::ZeroDuration());
    if (accepted.ok()) accepted_.emplace(*std::move(accepted));
    return true;
  }
  void Check(const testing::KillPoint&) override {
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

// The listener is killed while it begins to listen.
class ListenCase : public RendezvousCase {
 public:
  void Operate() override { (void)ListenAt(address()); }
  void Check(const testing::KillPoint&) override {
    // Nobody listens, and whatever was left is no obstacle.
    ASSERT_THAT(Connect(address()),
                AnyOf(StatusIs(StatusCode::kNotFound, HasSubstr("")),
                      StatusIs(StatusCode::kUnavailable, HasSubstr(""))));
    {
      auto listener = ListenAt(address());
      ASSERT_THAT(listener, IsOk());
      ExpectThatAnotherGetsIn(*listener);
    }
    ASSERT_THAT(directory_.Names(), ::testing::IsEmpty());
  }
};

// Or while it accepts one who need not shake hands.
class AcceptCase : public RendezvousCase {
 public:
  AcceptCase()
      : listener_(std::make_unique<Listener>(*Listener::Listen(address()))),
        client_(*Connect(address())) {}
  void Operate() override { (void)listener_->Accept(absl::ZeroDuration()); }
  void Check(const testing::KillPoint&) override {
    // As if only the victim had had it.
    listener_.reset();
    ASSERT_THAT(client_.Receive(kPatience),
                AnyOf(StatusIs(StatusCode::kOutOfRange, HasSubstr("")),
                      StatusIs(StatusCode::kUnavailable, HasSubstr(""))));
    ASSERT_THAT(Connect(address()),
                StatusIs(StatusCode::kNotFound, HasSubstr("")));
  }

 private:
  std::unique_ptr<Listener> listener_;
  Connection client_;
};

// With a key: killed while it challenges one who connected.
class ChallengeCase : public RendezvousCase {
 public:
  ChallengeCase() : listener_(*ListenAt(address())) {
    const auto to = address().ToSocket();
    client_.Reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(client_.get(), to->get(), to->size) != 0) abort();
  }
  void Operate() override { (void)listener_.Accept(absl::ZeroDuration()); }
  void Check(const testing::KillPoint&) override {
    client_.Reset();
    ExpectThatAnotherGetsIn(listener_);
  }

 private:
  Listener listener_;
  UniqueFd client_;
};

template <typename Case>
void Kill(const char* name, int stride) {
  const testing::KillPointReport report = testing::KillAtEveryInstruction(
      [] { return std::make_unique<Case>(); }, stride);
  Report(name, report, stride);
}

TEST(RendezvousKillTest, Connect) { Kill<ConnectCase>("Connect", kCoarse); }
TEST(RendezvousKillTest, Listen) { Kill<ListenCase>("Listen", kStride); }
TEST(RendezvousKillTest, Accept) { Kill<AcceptCase>("Accept", kStride); }
TEST(RendezvousKillTest, Challenge) {
  Kill<ChallengeCase>("Challenge", kStride);
}

}  // namespace
}  // namespace ipc::rendezvous
