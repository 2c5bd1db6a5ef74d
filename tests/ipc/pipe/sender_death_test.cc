// A sender dies, stops or dawdles inside a message while somebody else holds
// the sending end open, so that the stream does not end.
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "ipc/pipe/frame.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::pipe {
namespace {

using testing::Child;

using ::absl::StatusCode;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Minutes(1);
constexpr absl::Duration kShort = absl::Milliseconds(20);
// More than the kernel ever holds.
constexpr size_t kHuge = size_t{5} << 20;

void WriteRaw(int fd, absl::string_view bytes) {
  ASSERT_EQ(write(fd, bytes.data(), bytes.size()),
            static_cast<ssize_t>(bytes.size()));
}

std::string Frame(absl::string_view payload) {
  std::string frame;
  AppendFrame(payload, frame);
  return frame;
}

struct Kind {
  bool duplex = false;
  bool read_ahead = false;
  int way = 0;  // to receive
};

std::string NameOf(const ::testing::TestParamInfo<Kind>& info) {
  constexpr const char* kWays[] = {"Receive", "ReceiveInto", "ReceiveCord",
                                   "ReceiveBatch"};
  return absl::StrCat(info.param.duplex ? "Socketpair" : "Pipe",
                      info.param.read_ahead ? "ReadingAhead" : "",
                      kWays[info.param.way]);
}

std::vector<Kind> Kinds() {
  std::vector<Kind> kinds;
  for (const bool duplex : {false, true}) {
    for (int way = 0; way < 4; ++way) kinds.push_back({duplex, false, way});
    kinds.push_back({duplex, true, 0});
  }
  return kinds;
}

// The parent receives, and keeps the sending end open as well.
class SenderDeathTest : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override { Create({.watch_sender = true}); }
  void Create(Connection::Options options) {
    options.read_ahead = GetParam().read_ahead;
    auto ends = Connection::CreatePair(GetParam().duplex, options);
    ASSERT_TRUE(ends.ok()) << ends.status();
    receiver_.emplace(std::move(ends->first));
    sender_.emplace(std::move(ends->second));
  }
  Connection& receiver() { return *receiver_; }
  Connection& sender() { return *sender_; }

  // In the way of this test.
  absl::StatusOr<std::string> Receive(absl::Duration timeout) {
    switch (GetParam().way) {
      case 1: {
        buffer_.resize(2 * kHuge);
        const absl::StatusOr<size_t> size = receiver().ReceiveInto(
            {reinterpret_cast<std::byte*>(buffer_.data()), buffer_.size()},
            timeout);
        if (!size.ok()) return size.status();
        return buffer_.substr(0, *size);
      }
      case 2: {
        absl::StatusOr<absl::Cord> cord = receiver().ReceiveCord(timeout);
        if (!cord.ok()) return cord.status();
        return std::string(*cord);
      }
      case 3: {
        absl::StatusOr<std::vector<std::string>> batch =
            receiver().ReceiveBatch(timeout);
        if (!batch.ok()) return batch.status();
        if (batch->size() != 1) return absl::UnknownError("not one");
        return batch->front();
      }
      default:
        return receiver().Receive(timeout);
    }
  }

 private:
  std::optional<Connection> receiver_;
  std::optional<Connection> sender_;
  std::string buffer_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, SenderDeathTest, ::testing::ValuesIn(Kinds()),
                         NameOf);

TEST_P(SenderDeathTest, ASenderKilledAsleepInsideAMessageIsDataLoss) {
  Child child =
      Child::Fork([&] { return sender().Send(std::string(kHuge, 'x')).ok(); });
  ASSERT_THAT(receiver().Poll(kLong), IsOkAndHolds(true));
  child.AwaitSleep();  // nobody receives
  child.Kill();
  EXPECT_EQ(child.Wait(), -SIGKILL);
  EXPECT_THAT(Receive(kLong), StatusIs(StatusCode::kDataLoss,
                                       HasSubstr("the sender of a message")));
  EXPECT_THAT(Receive(kLong),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("died")));
}

TEST_P(SenderDeathTest, ASenderKilledWhileTheReceiverWaitsIsDataLoss) {
  Child child =
      Child::Fork([&] { return sender().Send(std::string(kHuge, 'x')).ok(); });
  ASSERT_THAT(receiver().Poll(kLong), IsOkAndHolds(true));
  child.AwaitSleep();
  child.Stop();  // so that it does not finish
  std::thread waiting([&] {
    EXPECT_THAT(Receive(kLong), StatusIs(StatusCode::kDataLoss, HasSubstr("")));
  });
  // It has taken what there was.
  const int fd = receiver().fd();
  for (int left = 1; left != 0; std::this_thread::yield()) {
    ASSERT_EQ(ioctl(fd, FIONREAD, &left), 0);
  }
  child.Kill();
  waiting.join();
  EXPECT_EQ(child.Wait(), -SIGKILL);
}

TEST_P(SenderDeathTest, AStoppedSenderIsWaitedFor) {
  Child child = Child::Fork(
      [&] { return sender().Send(std::string(kHuge, 'x')).ok() ? 0 : 1; });
  ASSERT_THAT(receiver().Poll(kLong), IsOkAndHolds(true));
  child.AwaitSleep();
  child.Stop();
  EXPECT_THAT(Receive(5 * Connection::kWatchTick),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  EXPECT_THAT(Receive(absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  child.Continue();
  EXPECT_THAT(Receive(kLong), IsOkAndHolds(std::string(kHuge, 'x')));
  EXPECT_EQ(child.Wait(), 0);
  // Between messages nothing can be told.
  EXPECT_THAT(Receive(2 * Connection::kWatchTick),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
}

TEST_P(SenderDeathTest, WhoDiedBetweenMessagesIsFollowedByAnother) {
  for (const char* text : {"small", "large"}) {
    const std::string message =
        text + std::string(*text == 's' ? 0 : kHuge, 'x');
    Child child = Child::Fork([&] {
      (void)sender().Send(message);
      return raise(SIGKILL);
    });
    EXPECT_THAT(Receive(kLong), IsOkAndHolds(message));
    EXPECT_EQ(child.Wait(), -SIGKILL);
  }
}

// Of the same process, too.
TEST_P(SenderDeathTest, ASenderThatGaveUpInsideAMessage) {
  EXPECT_THAT(sender().Send(std::string(kHuge, 'x'), kShort),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  if (GetParam().duplex) {
    // It lives, and nobody knows that it will send no more.
    EXPECT_THAT(Receive(kShort),
                StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  } else {
    EXPECT_THAT(Receive(kLong),
                StatusIs(StatusCode::kDataLoss, HasSubstr("given up")));
  }
}

TEST_P(SenderDeathTest, AThreadOfThisProcessSends) {
  std::thread thread([&] {
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(sender().Send(std::string(kHuge, 'a' + i), kLong).ok());
    }
  });
  for (int i = 0; i < 3; ++i) {
    // Each takes several receives.
    absl::StatusOr<std::string> message;
    do {
      message = Receive(absl::Milliseconds(1));
    } while (absl::IsDeadlineExceeded(message.status()));
    EXPECT_THAT(message, IsOkAndHolds(std::string(kHuge, 'a' + i)));
  }
  thread.join();
}

// Also of a batch, in which no message is large.
TEST_P(SenderDeathTest, ABatch) {
  if (GetParam().way == 3) return;  // several at a time
  const std::string message(3000, 'x');
  const std::vector<absl::string_view> batch(2000, message);
  Child child = Child::Fork([&] { return sender().SendBatch(batch).ok(); });
  ASSERT_THAT(receiver().Poll(kLong), IsOkAndHolds(true));
  child.AwaitSleep();
  child.Kill();
  EXPECT_EQ(child.Wait(), -SIGKILL);
  absl::StatusOr<std::string> received;
  while ((received = Receive(kShort)).ok()) {
    ASSERT_EQ(*received, message);
  }
  if (!GetParam().duplex) {
    // What a pipe holds is a power of two, and no multiple of a frame.
    EXPECT_THAT(received, StatusIs(StatusCode::kDataLoss, HasSubstr("died")));
  } else {
    // A socket's buffer may have ended with a message.
    EXPECT_THAT(received,
                AnyOf(StatusIs(StatusCode::kDataLoss, HasSubstr("died")),
                      StatusIs(StatusCode::kDeadlineExceeded, HasSubstr(""))));
  }
}

TEST_P(SenderDeathTest, AFrameThatTakesTooLongIsDataLoss) {
  Create({.frame_timeout = kShort});
  // Time between messages does not count.
  EXPECT_THAT(Receive(2 * kShort),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  WriteRaw(sender().fd(), Frame("0123456789").substr(0, 9));
  const absl::Time begin = absl::Now();
  EXPECT_THAT(Receive(absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  // All that wait for it share its time.
  EXPECT_THAT(Receive(kLong),
              StatusIs(StatusCode::kDataLoss, HasSubstr("frame_timeout")));
  EXPECT_GE(absl::Now() - begin, kShort);
  EXPECT_THAT(Receive(kLong), StatusIs(StatusCode::kFailedPrecondition,
                                       HasSubstr("frame_timeout")));
}

TEST_P(SenderDeathTest, EachFrameHasItsOwnTime) {
  constexpr absl::Duration kTimeout = absl::Milliseconds(300);
  Create({.frame_timeout = kTimeout});
  const std::string frame = Frame("0123456789");
  WriteRaw(sender().fd(), frame.substr(0, 7));
  EXPECT_THAT(Receive(absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  // The next one comes right behind, and is not waited for yet.
  WriteRaw(sender().fd(), frame.substr(7) + frame.substr(0, 7));
  EXPECT_THAT(Receive(kLong), IsOkAndHolds("0123456789"));
  absl::SleepFor(kTimeout);
  EXPECT_THAT(Receive(absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  WriteRaw(sender().fd(), frame.substr(7));
  EXPECT_THAT(Receive(kLong), IsOkAndHolds("0123456789"));
}

// ---- Over a socket the sender need not know: it may be Python.

class WatchedSocketTest : public ::testing::Test {
 protected:
  WatchedSocketTest() : ends_(*Connection::CreatePair()) {
    receiver_.emplace(*Connection::FromFd(
        UniqueFd(fcntl(ends_.first.fd(), F_DUPFD_CLOEXEC, 0)),
        {.watch_sender = true}));
  }
  Connection& receiver() { return *receiver_; }
  int sender_fd() const { return ends_.second.fd(); }

  std::pair<Connection, Connection> ends_;
  std::optional<Connection> receiver_;
};

TEST_F(WatchedSocketTest, WhoDiesInsideAHeader) {
  Child child = Child::Fork([&] {
    WriteRaw(sender_fd(), Frame("0123456789").substr(0, 3));
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_THAT(receiver().Receive(kLong),
              StatusIs(StatusCode::kDataLoss, HasSubstr("died")));
}

TEST_F(WatchedSocketTest, WhoDiesWithoutAWaitForItsStatus) {
  Child child = Child::Fork([&] {
    WriteRaw(sender_fd(), Frame("0123456789").substr(0, 9));
    return raise(SIGKILL);
  });
  EXPECT_THAT(receiver().Receive(kLong),
              StatusIs(StatusCode::kDataLoss, HasSubstr("died")));
  EXPECT_EQ(child.Wait(), -SIGKILL);
}

TEST_F(WatchedSocketTest, TwoThatMixTheirBytes) {
  Child child = Child::Fork([&](Child::Side side) {
    WriteRaw(sender_fd(), Frame("0123456789").substr(0, 9));
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(child.Hear());
  EXPECT_THAT(receiver().Receive(kShort),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  WriteRaw(sender_fd(), Frame("a message of ours"));
  EXPECT_THAT(receiver().Receive(kLong),
              StatusIs(StatusCode::kDataLoss,
                       HasSubstr(absl::StrCat("process ", getpid(), " sent"))));
  ASSERT_TRUE(child.Tell());
  EXPECT_EQ(child.Wait(), 0);
}

// What was sent before the receiver asked comes without its sender.
TEST_F(WatchedSocketTest, WhatWasSentBeforeIsReceived) {
  receiver_.reset();
  ends_ = *Connection::CreatePair();
  WriteRaw(sender_fd(), Frame("0123456789").substr(0, 9));
  receiver_.emplace(
      *Connection::FromFd(UniqueFd(fcntl(ends_.first.fd(), F_DUPFD_CLOEXEC, 0)),
                          {.watch_sender = true}));
  EXPECT_THAT(receiver().Receive(kShort),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  WriteRaw(sender_fd(), Frame("0123456789").substr(9));
  EXPECT_THAT(receiver().Receive(kLong), IsOkAndHolds("0123456789"));
}

TEST_F(WatchedSocketTest, DescriptorsComeAsBefore) {
  ASSERT_THAT(ends_.second.SendFds({STDIN_FILENO, STDOUT_FILENO}), IsOk());
  const auto fds = receiver().ReceiveFds(253, kLong);
  ASSERT_THAT(fds, IsOk());
  EXPECT_EQ(fds->size(), 2u);
}

}  // namespace
}  // namespace ipc::pipe
