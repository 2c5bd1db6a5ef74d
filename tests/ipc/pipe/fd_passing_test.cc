// Descriptors on their way to another process; also what CPython's tests of
// that say, by their names.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
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

// CPython: test_access, test_pickling
TEST_F(FdPassingTest, AnotherProcessGetsTheEndOfAPipe) {
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

// CPython: test_missing_fd_transfer
TEST_F(FdPassingTest, AMessageThatComesFirstIsKept) {
  ASSERT_TRUE(left().Send("a message").ok());
  EXPECT_TRUE(
      absl::IsFailedPrecondition(right().ReceiveFds(1, kLong).status()));
  EXPECT_TRUE(
      absl::IsFailedPrecondition(right().ReceiveFds(1, kLong).status()));
  EXPECT_EQ(*right().Receive(kLong), "a message");
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
