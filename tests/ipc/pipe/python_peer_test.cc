// A real Python process, started with nothing but a descriptor, is the peer of
// a Connection: multiprocessing.connection.Connection, as a user would use it.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "tests/testing/child.h"

namespace ipc::pipe {
namespace {

using testing::Child;

constexpr absl::Duration kLong = absl::Minutes(5);
constexpr size_t kSizes[] = {0, 1, 16384, 16385, 1 << 20};

// As in python_peer.py.
std::string Pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>((i * 31 + i / 251) & 0xff);
  }
  return text;
}

std::string ReadAll(int fd) {
  std::string text;
  char buffer[100];
  for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;) {
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

// Both ends of what connects us with the child; of a pipe pair, two of each.
struct Ends {
  std::vector<Connection> ours;  // the receiving and the sending one, or both
  std::vector<Connection> childs;
  Connection& receiver() { return ours.front(); }
  Connection& sender() { return ours.back(); }
};

class PythonPeerTest : public ::testing::TestWithParam<bool> {
 protected:
  static Ends Connect(const Connection::Options& options = {}) {
    Ends ends;
    if (GetParam()) {
      auto pair = Connection::CreatePair(/*duplex=*/true, options);
      EXPECT_TRUE(pair.ok()) << pair.status();
      ends.ours.push_back(std::move(pair->first));
      ends.childs.push_back(std::move(pair->second));
      return ends;
    }
    auto from_child = Connection::CreatePair(/*duplex=*/false, options);
    auto to_child = Connection::CreatePair(/*duplex=*/false, options);
    EXPECT_TRUE(from_child.ok() && to_child.ok());
    ends.ours.push_back(std::move(from_child->first));
    ends.ours.push_back(std::move(to_child->second));
    ends.childs.push_back(std::move(to_child->first));
    ends.childs.push_back(std::move(from_child->second));
    return ends;
  }

  // Starts python_peer.py, which alone keeps the child's ends.
  static Child Start(const std::string& role, Ends& ends) {
    Child child = Child::Fork([&] {
      for (const Connection& end : ends.childs) {
        fcntl(end.fd(), F_SETFD, 0);  // granted: not close-on-exec
      }
      const std::string receive = absl::StrCat(ends.childs.front().fd());
      const std::string send = absl::StrCat(ends.childs.back().fd());
      // Tests run in the root of their runfiles. -I: nothing of the user's.
      execl("/usr/bin/python3", "python3", "-I",
            "tests/ipc/pipe/python_peer.py", role.c_str(), receive.c_str(),
            send.c_str(), nullptr);
      perror("execl /usr/bin/python3");
      return 127;
    });
    for (Connection& end : ends.childs) end.Close();
    return child;
  }
};

INSTANTIATE_TEST_SUITE_P(Kinds, PythonPeerTest, ::testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "Socketpair" : "TwoPipes";
                         });

TEST_P(PythonPeerTest, EchoesMessagesOfAllSizes) {
  Ends ends = Connect();
  Child child = Start("echo", ends);
  for (const size_t size : kSizes) {
    const absl::Status sent = ends.sender().Send(Pattern(size), kLong);
    ASSERT_TRUE(sent.ok()) << sent;
    absl::StatusOr<std::string> echo = ends.receiver().Receive(kLong);
    ASSERT_TRUE(echo.ok()) << echo.status();
    EXPECT_TRUE(*echo == Pattern(size)) << size;
  }
  if (GetParam()) {
    ASSERT_TRUE(ends.sender().ShutdownSend().ok());
  } else {
    ends.sender().Close();
  }
  EXPECT_TRUE(absl::IsOutOfRange(ends.receiver().Receive(kLong).status()));
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(PythonPeerTest, ReceivesWhatPythonSends) {
  Ends ends = Connect();
  Child child = Start("send", ends);
  for (const size_t size : kSizes) {
    absl::StatusOr<std::string> message = ends.receiver().Receive(kLong);
    ASSERT_TRUE(message.ok()) << message.status();
    EXPECT_TRUE(*message == Pattern(size)) << size;
  }
  EXPECT_TRUE(absl::IsOutOfRange(ends.receiver().Receive(kLong).status()));
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(PythonPeerTest, SendsWhatPythonReceives) {
  Ends ends = Connect();
  Child child = Start("receive", ends);
  for (const size_t size : kSizes) {
    const absl::Status sent = ends.sender().Send(Pattern(size), kLong);
    ASSERT_TRUE(sent.ok()) << sent;
  }
  ends.sender().Close();
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(PythonPeerTest, PythonSeesATruncatedMessage) {
  Ends ends = Connect();
  Child child = Start("receive_truncated", ends);
  const char part[] = {0, 0, 0, 100, 'x', 'y'};
  ASSERT_EQ(write(ends.sender().fd(), part, sizeof(part)),
            static_cast<ssize_t>(sizeof(part)));
  ends.sender().Close();
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(PythonPeerTest, PythonWaitsForOurs) {
  Ends ends = Connect();
  Child child = Start("wait_ready", ends);
  EXPECT_EQ(*ends.receiver().Receive(kLong), "waiting");
  ASSERT_TRUE(ends.sender().Send("message", kLong).ok());
  if (GetParam()) {
    ASSERT_TRUE(ends.sender().ShutdownSend().ok());
  } else {
    ends.sender().Close();
  }
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(PythonPeerTest, HandlesPassBothWays) {
  if (!GetParam()) return;  // over a socket only
  Ends ends = Connect();
  Child child = Start("pass_handles", ends);
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd reader(fds[0]);
  UniqueFd writer(fds[1]);
  ASSERT_TRUE(ends.sender().SendFds({writer.get()}, kLong).ok());
  writer.Reset();
  EXPECT_EQ(ReadAll(reader.get()), "from Python");
  const auto received = ends.receiver().ReceiveFds(1, kLong);
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_EQ(ReadAll(received->front().get()), "to C++");
  EXPECT_EQ(child.Wait(), 0);
}

// Takes gigabytes and seconds: bazel test --test_env=PARLEY_HUGE_MESSAGES=1.
TEST_P(PythonPeerTest, MessagesAboveTwoGibibytes) {
  if (getenv("PARLEY_HUGE_MESSAGES") == nullptr) {
    GTEST_SKIP() << "asked for by --test_env=PARLEY_HUGE_MESSAGES=1";
  }
  constexpr size_t kSize = (size_t{1} << 31) + 256;
  std::string message(kSize, '\0');
  for (size_t i = 0; i < kSize; ++i) message[i] = static_cast<char>(i & 0xff);
  const Connection::Options options = {.max_message_bytes = kSize};
  Ends ends = Connect(options);
  Child receiving = Start("receive_huge", ends);
  ASSERT_TRUE(ends.sender().Send(message, kLong).ok());
  // Of what it sends itself, further below.
  EXPECT_EQ(*ends.receiver().Receive(kLong), absl::StrCat(kSize, " same"));
  EXPECT_EQ(receiving.Wait(), 0);

  Ends more = Connect(options);
  Child sending = Start("send_huge", more);
  const auto received = more.receiver().Receive(kLong);
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_TRUE(*received == message) << received->size();
  EXPECT_EQ(sending.Wait(), 0);
}

TEST_P(PythonPeerTest, APythonKilledInsideAMessageIsDataLoss) {
  Ends ends = Connect();
  Child child = Start("die_inside", ends);
  absl::StatusOr<std::string> message = ends.receiver().Receive(kLong);
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_EQ(*message, "whole");
  const absl::Status status = ends.receiver().Receive(kLong).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(child.Wait(), -SIGKILL);
}

// The stream does not end, but the kernel knows who has sent what.
TEST_P(PythonPeerTest, APythonKilledInsideAMessageWhileItsEndIsHeld) {
  if (!GetParam()) return;  // over a socket only
  Ends ends = Connect({.watch_sender = true});
  const UniqueFd held(fcntl(ends.childs.front().fd(), F_DUPFD_CLOEXEC, 0));
  Child child = Start("die_inside", ends);
  EXPECT_EQ(*ends.receiver().Receive(kLong), "whole");
  const absl::Status status = ends.receiver().Receive(kLong).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(child.Wait(), -SIGKILL);
}

}  // namespace
}  // namespace ipc::pipe
