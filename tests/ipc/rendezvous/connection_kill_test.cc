// A process is killed after each instruction of sending, of connecting and of
// accepting; whoever is left finds out, and goes on.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
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

UniqueFd Dup(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

void Report(const char* name, const testing::KillPointReport& report,
            int stride) {
  printf("%s: %d kill points, every %d. instruction (%d asleep, %d missed)\n",
         name, report.points, stride, report.asleep, report.astray);
  EXPECT_GT(report.points, 2);
  EXPECT_EQ(report.completed, 1);
}

// ---- Sending.

// The receiver keeps a copy of the sending end open, so that nothing but the
// bytes tells it anything; and then closes it.
class SendCase : public testing::KillPointCase {
 public:
  SendCase(bool duplex, size_t bytes, bool batch)
      : message_(bytes, 'm'), batch_(batch) {
    auto ends = *Connection::CreatePair(duplex);
    receiver_.emplace(std::move(ends.first));
    sender_.emplace(std::move(ends.second));
    copy_ = Dup(sender_->fd());
    views_ = {message_, message_, message_};
  }
  void Operate() override {
    if (batch_) {
      (void)sender_->SendBatch(views_);
    } else {
      (void)sender_->Send(message_);
    }
  }
  void Check(const testing::KillPoint& point) override {
    sender_->Close();
    size_t whole = 0;
    // What has been sent is there at once.
    while (true) {
      const auto message = receiver_->Receive(absl::ZeroDuration());
      if (!message.ok()) {
        ASSERT_THAT(message,
                    StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
        break;
      }
      ASSERT_TRUE(*message == message_);
      ++whole;
    }
    if (point.completed) {
      ASSERT_EQ(whole, batch_ ? views_.size() : 1);
    }
    // And when nobody can send any more, the end, clean or not.
    copy_.Reset();
    ASSERT_THAT(receiver_->Receive(kPatience),
                AnyOf(StatusIs(StatusCode::kOutOfRange, HasSubstr("")),
                      StatusIs(StatusCode::kDataLoss, HasSubstr(""))));
  }

 private:
  const std::string message_;
  const bool batch_;
  std::vector<absl::string_view> views_;
  std::optional<Connection> receiver_;
  std::optional<Connection> sender_;
  UniqueFd copy_;
};

struct SendParameters {
  std::string name;
  bool duplex;
  size_t bytes;
  bool batch;
};

class SendKillTest : public ::testing::TestWithParam<SendParameters> {};

INSTANTIATE_TEST_SUITE_P(
    Sends, SendKillTest,
    ::testing::Values(SendParameters{"Pipe", false, 100, false},
                      SendParameters{"Socket", true, 100, false},
                      SendParameters{"LargeOverASocket", true, 20'000, false},
                      SendParameters{"BatchOverAPipe", false, 100, true},
                      SendParameters{"BatchOverASocket", true, 100, true}),
    [](const auto& info) { return info.param.name; });

TEST_P(SendKillTest, TheReceiverFindsOut) {
  const auto& [name, duplex, bytes, batch] = GetParam();
  const testing::KillPointReport report = testing::KillAtEveryInstruction(
      [&, duplex = duplex, bytes = bytes, batch = batch] {
        return std::make_unique<SendCase>(duplex, bytes, batch);
      },
      kStride);
  Report(name.c_str(), report, kStride);
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
