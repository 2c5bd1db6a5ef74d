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
#else
constexpr int kStride = 23;
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

// Or while it accepts one who need not shake hands; else see
// handshake_kill_test.cc.
class AcceptCase : public RendezvousCase {
 public:
  AcceptCase() : client_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  void Prepare() override {
    listener_.emplace(*Listener::Listen(address()));
    // Also the parent's, who has the same socket.
    const auto to = address().ToSocket();
    if (connect(client_.get(), to->get(), to->size) != 0) abort();
  }
  void Operate() override { (void)listener_->Accept(absl::ZeroDuration()); }
  void Check(const testing::KillPoint&) override {
    auto client = Connection::FromFd(std::move(client_));
    ASSERT_THAT(client, IsOk());
    ASSERT_THAT(client->Receive(kPatience),
                AnyOf(StatusIs(StatusCode::kOutOfRange, HasSubstr("")),
                      StatusIs(StatusCode::kUnavailable, HasSubstr(""))));
    ASSERT_THAT(Connect(address()),
                StatusIs(StatusCode::kUnavailable, HasSubstr("")));
    auto next = ListenAt(address());
    ASSERT_THAT(next, IsOk());
    ExpectThatAnotherGetsIn(*next);
  }

 private:
  UniqueFd client_;
  std::optional<Listener> listener_;  // the victim's
};

template <typename Case>
void Kill(const char* name, int stride) {
  const testing::KillPointReport report = testing::KillAtEveryInstruction(
      [] { return std::make_unique<Case>(); }, stride);
  Report(name, report, stride);
}

TEST(RendezvousKillTest, Listen) { Kill<ListenCase>("Listen", kStride); }
TEST(RendezvousKillTest, Accept) { Kill<AcceptCase>("Accept", kStride); }

}  // namespace
}  // namespace ipc::rendezvous
