// Descriptors on their way to another process; also what CPython's tests of
// that say, by their names.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "tests/ipc/pipe/signal_storm.h"
#include "tests/testing/child.h"

namespace ipc::pipe {
namespace {

using testing::Child;

using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Minutes(5);
constexpr absl::Duration kShort = absl::Milliseconds(20);

long OpenFds() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return std::distance(begin(all), end(all));
}

bool SameFile(int a, int b) {
  struct stat one, other;
  return fstat(a, &one) == 0 && fstat(b, &other) == 0 &&
         one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

class FdPassingTest : public ::testing::Test {
 protected:
  FdPassingTest() : ends_(*Connection::CreatePair(/*duplex=*/true)) {}
  Connection& left() { return ends_.first; }
  Connection& right() { return ends_.second; }

  std::pair<Connection, Connection> ends_;
};

// CPython: test_fd_transfer
TEST_F(FdPassingTest, FdTransfer) {
  char path[] = "/tmp/fd_passing_XXXXXX";
  UniqueFd file(mkostemp(path, O_CLOEXEC));
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(unlink(path), 0);
  Child child = Child::Fork([&] {
    file.Reset();
    const auto fds = right().ReceiveFds(1, kLong);
    return fds.ok() && write(fds->front().get(), "foo", 3) == 3 ? 0 : 1;
  });
  ASSERT_TRUE(left().SendFds({file.get()}, kLong).ok());
  EXPECT_EQ(child.Wait(), 0);
  char text[4] = {};
  EXPECT_EQ(pread(file.get(), text, sizeof(text), 0), 3);
  EXPECT_EQ(std::string(text), "foo");
}

// CPython: test_large_fd_transfer, of one whose number is above 255
TEST_F(FdPassingTest, LargeFdTransfer) {
  const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd large(fcntl(null.get(), F_DUPFD_CLOEXEC, 300));
  ASSERT_GE(large.get(), 300);
  ASSERT_TRUE(left().SendFds({large.get()}, kLong).ok());
  const auto fds = right().ReceiveFds(1, kLong);
  ASSERT_TRUE(fds.ok()) << fds.status();
  EXPECT_TRUE(SameFile(fds->front().get(), null.get()));
}

// CPython: test_access of TestPicklingConnections, of ends in both directions
TEST_F(FdPassingTest, Access) {
  Child child = Child::Fork([&] {
    left().Close();
    Connection& conn = right();
    const auto receive_end = [&]() -> absl::StatusOr<Connection> {
      auto fds = conn.ReceiveFds(1, kLong);
      if (!fds.ok()) return fds.status();
      return Connection::FromFd(std::move(fds->front()));
    };
    absl::StatusOr<Connection> w = receive_end();
    if (!w.ok() || w->readable() || !w->Send("all is well").ok()) return 1;
    w->Close();
    absl::StatusOr<Connection> r = receive_end();
    if (!r.ok() || r->writable()) return 2;
    const absl::StatusOr<std::string> message = r->Receive(kLong);
    return message.ok() && conn.Send(*message + *message).ok() ? 0 : 3;
  });
  right().Close();
  Connection& conn = left();
  auto pipe = Connection::CreatePair(/*duplex=*/false);
  ASSERT_TRUE(conn.SendFds({pipe->second.fd()}, kLong).ok());
  pipe->second.Close();
  EXPECT_EQ(*pipe->first.Receive(kLong), "all is well");
  pipe = Connection::CreatePair(/*duplex=*/false);
  ASSERT_TRUE(conn.SendFds({pipe->first.fd()}, kLong).ok());
  pipe->first.Close();
  ASSERT_TRUE(pipe->second.Send("foobar", kLong).ok());
  EXPECT_EQ(*conn.Receive(kLong), "foobarfoobar");
  EXPECT_EQ(child.Wait(), 0);
}

// CPython: test_pickling
TEST_F(FdPassingTest, Pickling) {
  Child child = Child::Fork([&] {
    left().Close();
    auto fds = right().ReceiveFds(1, kLong);
    if (!fds.ok() || fds->size() != 1) return 1;
    if ((fcntl(fds->front().get(), F_GETFD) & FD_CLOEXEC) == 0) return 2;
    auto end = Connection::FromFd(std::move(fds->front()));
    return end.ok() && end->Send("through it", kLong).ok() ? 0 : 3;
  });
  right().Close();
  auto pipe = Connection::CreatePair(/*duplex=*/false);
  ASSERT_TRUE(left().SendFds({pipe->second.fd()}, kLong).ok());
  pipe->second.Close();
  EXPECT_EQ(*pipe->first.Receive(kLong), "through it");
  EXPECT_TRUE(absl::IsOutOfRange(pipe->first.Receive(kLong).status()));
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(FdPassingTest, ComeInOrderAmongMessages) {
  const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd zero(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(left().Send("before").ok());
  ASSERT_TRUE(left().SendFds({null.get(), zero.get()}).ok());
  ASSERT_TRUE(left().SendFds({zero.get()}).ok());
  ASSERT_TRUE(left().Send("after").ok());
  EXPECT_EQ(*right().Receive(kLong), "before");
  const auto two = right().ReceiveFds(253, kLong);
  ASSERT_TRUE(two.ok()) << two.status();
  ASSERT_EQ(two->size(), 2u);
  EXPECT_TRUE(SameFile(two->front().get(), null.get()));
  EXPECT_TRUE(SameFile(two->back().get(), zero.get()));
  EXPECT_EQ(right().ReceiveFds(1, kLong)->size(), 1u);
  EXPECT_EQ(*right().Receive(kLong), "after");
}

TEST_F(FdPassingTest, AsManyAsTheKernelTakes) {
  const long before = OpenFds();
  const std::vector<int> all(253, STDIN_FILENO);
  ASSERT_TRUE(left().SendFds(all).ok());
  EXPECT_EQ(right().ReceiveFds(253, kLong)->size(), 253u);
  const std::vector<int> too_many(254, STDIN_FILENO);
  EXPECT_TRUE(absl::IsInvalidArgument(left().SendFds(too_many)));
  EXPECT_TRUE(absl::IsInvalidArgument(left().SendFds({})));
  EXPECT_EQ(OpenFds(), before);
}

TEST_F(FdPassingTest, AFloodIsClosedAgain) {
  const long before = OpenFds();
  const std::vector<int> many(100, STDIN_FILENO);
  ASSERT_TRUE(left().SendFds(many).ok());
  const auto received = right().ReceiveFds(3, kLong);
  EXPECT_TRUE(absl::IsResourceExhausted(received.status()));
  EXPECT_THAT(std::string(received.status().message()),
              HasSubstr("100 descriptors came, at most 3"));
  EXPECT_EQ(OpenFds(), before);
  // The stream goes on behind it.
  ASSERT_TRUE(left().Send("after").ok());
  EXPECT_EQ(*right().Receive(kLong), "after");
}

TEST_F(FdPassingTest, NoRoomForOpenFilesIsResourceExhausted) {
  const std::vector<int> many(100, STDIN_FILENO);
  ASSERT_TRUE(left().SendFds(many).ok());
  const long before = OpenFds();
  rlimit old;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  const rlimit few = {.rlim_cur = static_cast<rlim_t>(before) + 20,
                      .rlim_max = old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  const auto received = right().ReceiveFds(253, kLong);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
  EXPECT_TRUE(absl::IsResourceExhausted(received.status()))
      << received.status();
  EXPECT_THAT(std::string(received.status().message()),
              HasSubstr("raise RLIMIT_NOFILE"));
  EXPECT_EQ(OpenFds(), before);
}

// Many messages that nobody receives; the kernel counts the descriptors of a
// user that are on their way.
TEST_F(FdPassingTest, AFloodOfMessagesIsResourceExhausted) {
  const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  Child child = Child::Fork([&] {
    const rlimit few = {.rlim_cur = 64, .rlim_max = 64};
    if (setrlimit(RLIMIT_NOFILE, &few) != 0) return 1;
    // Root may do more.
    if (geteuid() == 0) (void)!setuid(65534);
    const std::vector<int> many(50, null.get());
    absl::Status status;
    int sent = 0;
    while ((status = left().SendFds(many, absl::ZeroDuration())).ok()) ++sent;
    if (!absl::IsResourceExhausted(status)) {
      fprintf(stderr, "%d messages, then %s\n", sent,
              status.ToString().c_str());
      return 2;
    }
    // What was sent is received, and then there is room; unless another process
    // of this user has as many on their way, of which nobody tells.
    for (int i = 0; i < sent; ++i) {
      if (right().ReceiveFds(50, kLong)->size() != 50) return 3;
    }
    const absl::Time end = absl::Now() + kLong;
    do {
      status = left().SendFds({null.get()});
    } while (absl::IsResourceExhausted(status) && absl::Now() < end);
    if (!status.ok()) return 4;
    return right().ReceiveFds(1, kLong).ok() ? 0 : 5;
  });
  EXPECT_EQ(child.Wait(), 0);
}

// Nobody receives: neither are these kept for ever.
TEST_F(FdPassingTest, APeerThatNeverReads) {
  absl::Status status;
  while ((status = left().SendFds({STDIN_FILENO}, absl::ZeroDuration())).ok()) {
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  const absl::Time start = absl::Now();
  status = left().SendFds({STDIN_FILENO}, kShort);
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_GE(absl::Now() - start, kShort);
  // Nothing was sent, and it may be repeated.
  ASSERT_TRUE(right().ReceiveFds(1, kLong).ok());
  EXPECT_TRUE(left().SendFds({STDIN_FILENO}, kLong).ok());
}

// Who has set SO_PASSCRED on a socket gets credentials along with descriptors.
TEST_F(FdPassingTest, CredentialsBesides) {
  const int on = 1;
  ASSERT_EQ(setsockopt(right().fd(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)),
            0);
  const long before = OpenFds();
  const std::vector<int> all(253, STDIN_FILENO);
  ASSERT_TRUE(left().SendFds(all).ok());
  {
    const auto received = right().ReceiveFds(253, kLong);
    ASSERT_TRUE(received.ok()) << received.status();
    EXPECT_EQ(received->size(), 253u);
  }
  EXPECT_EQ(OpenFds(), before);
}

// While a timer interrupts all that sleeps.
TEST_F(FdPassingTest, SurviveAStormOfSignals) {
  constexpr int kMessages = 1000;
  const SignalStorm storm;
  Child child = Child::Fork([&] {
    const SignalStorm own;  // a timer is not inherited
    for (int i = 0; i < kMessages; ++i) {
      // Now and then the sender has to wait for room.
      if (i % 300 == 0) absl::SleepFor(absl::Milliseconds(5));
      const auto fds = right().ReceiveFds(253, kLong);
      if (!fds.ok() || fds->size() != 1) return 1;
    }
    return 0;
  });
  for (int i = 0; i < kMessages; ++i) {
    // And the receiver for descriptors.
    if (i % 100 == 50) absl::SleepFor(absl::Milliseconds(2));
    const absl::Status status = left().SendFds(
        {STDIN_FILENO}, i % 2 == 0 ? kLong : absl::InfiniteDuration());
    ASSERT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(child.Wait(), 0);
  const absl::Time start = absl::Now();
  EXPECT_TRUE(absl::IsDeadlineExceeded(left().ReceiveFds(1, kShort).status()));
  EXPECT_GE(absl::Now() - start, kShort);
}

// CPython: test_missing_fd_transfer, of one who announces a descriptor and
// sends none
TEST_F(FdPassingTest, MissingFdTransfer) {
  ASSERT_TRUE(left().Send("a message").ok());
  EXPECT_TRUE(
      absl::IsFailedPrecondition(right().ReceiveFds(1, kLong).status()));
  EXPECT_TRUE(
      absl::IsFailedPrecondition(right().ReceiveFds(1, kLong).status()));
  EXPECT_EQ(*right().Receive(kLong), "a message");
}

// As the header warns; they are closed, at least.
TEST_F(FdPassingTest, ABatchThatGoesBeyondAMessageLosesThem) {
  const long before = OpenFds();
  ASSERT_TRUE(left().Send("a message").ok());
  ASSERT_TRUE(left().SendFds({STDIN_FILENO}).ok());
  EXPECT_THAT(*right().ReceiveBatch(kLong),
              ::testing::ElementsAre("a message"));
  EXPECT_TRUE(absl::IsFailedPrecondition(
      right().ReceiveFds(1, absl::ZeroDuration()).status()));
  EXPECT_EQ(OpenFds(), before);
}

TEST_F(FdPassingTest, ACountThatIsNotTrueIsDataLoss) {
  const long before = OpenFds();
  char byte = 7;
  iovec part = {.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* const rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = STDIN_FILENO;
  std::memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
  ASSERT_EQ(sendmsg(left().fd(), &message, 0), 1);
  EXPECT_TRUE(absl::IsDataLoss(right().ReceiveFds(5, kLong).status()));
  EXPECT_EQ(OpenFds(), before);
}

TEST_F(FdPassingTest, NothingComesInTime) {
  EXPECT_TRUE(absl::IsDeadlineExceeded(right().ReceiveFds(1, kShort).status()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      right().ReceiveFds(1, absl::ZeroDuration()).status()));
  left().Close();
  EXPECT_TRUE(absl::IsOutOfRange(right().ReceiveFds(1, kLong).status()));
  EXPECT_TRUE(absl::IsUnavailable(right().SendFds({STDIN_FILENO})));
}

TEST_F(FdPassingTest, WhatIsNotOpenCannotBeSent) {
  UniqueFd fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int number = fd.get();
  fd.Reset();
  EXPECT_TRUE(absl::IsFailedPrecondition(left().SendFds({number})));
  ASSERT_TRUE(left().Send("still a boundary").ok());
  EXPECT_EQ(*right().Receive(kLong), "still a boundary");
}

TEST_F(FdPassingTest, APipeCarriesNoneAndKnowsNoPeer) {
  auto pipe = Connection::CreatePair(/*duplex=*/false);
  EXPECT_TRUE(absl::IsFailedPrecondition(pipe->second.SendFds({STDIN_FILENO})));
  EXPECT_TRUE(absl::IsFailedPrecondition(pipe->first.ReceiveFds(1).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(pipe->first.peer().status()));
}

TEST_F(FdPassingTest, TheOneWhoMadeThePairIsThePeer) {
  const auto peer = right().peer();
  ASSERT_TRUE(peer.ok()) << peer.status();
  EXPECT_EQ(peer->pid, getpid());
  EXPECT_EQ(peer->uid, geteuid());
  EXPECT_EQ(peer->gid, getegid());
  right().Close();
  EXPECT_TRUE(absl::IsFailedPrecondition(right().peer().status()));
}

}  // namespace
}  // namespace ipc::pipe
