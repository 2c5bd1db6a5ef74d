// A real Python process, started with nothing but a descriptor, is the peer of
// a Connection: multiprocessing.connection.Connection, as a user would use it.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
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
#include "tests/ipc/pipe/child.h"

namespace ipc::pipe {
namespace {

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

// Both ends of what connects us with the child; of a pipe pair, two of each.
struct Ends {
  std::vector<Connection> ours;  // the receiving and the sending one, or both
  std::vector<Connection> childs;
  Connection& receiver() { return ours.front(); }
  Connection& sender() { return ours.back(); }
};

class PythonPeerTest : public testing::TestWithParam<bool> {
 protected:
  static Ends Connect() {
    Ends ends;
    if (GetParam()) {
      auto pair = Connection::CreatePair(/*duplex=*/true);
      EXPECT_TRUE(pair.ok()) << pair.status();
      ends.ours.push_back(std::move(pair->first));
      ends.childs.push_back(std::move(pair->second));
      return ends;
    }
    auto from_child = Connection::CreatePair(/*duplex=*/false);
    auto to_child = Connection::CreatePair(/*duplex=*/false);
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

INSTANTIATE_TEST_SUITE_P(Kinds, PythonPeerTest, testing::Bool(),
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

}  // namespace
}  // namespace ipc::pipe
