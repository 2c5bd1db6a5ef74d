// WaitAny, with the behaviours of CPython's TestWait under its names.
#include "ipc/base/wait_any.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "tests/testing/process_state.h"

namespace ipc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Some pipes.
class WaitAnyTest : public ::testing::Test {
 protected:
  void Add() {
    int fds[2];
    ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
    readers_.emplace_back(fds[0]);
    writers_.emplace_back(fds[1]);
    waitables_.push_back(std::make_unique<WaitableFd>(fds[0]));
  }
  void SetUp() override {
    for (int i = 0; i < 4; ++i) Add();
  }
  std::vector<const Waitable*> All() const {
    std::vector<const Waitable*> all;
    for (const auto& waitable : waitables_) all.push_back(waitable.get());
    return all;
  }
  void Write(int i) { ASSERT_EQ(write(writers_[i].get(), "x", 1), 1); }
  void Read(int i) {
    char byte;
    ASSERT_EQ(read(readers_[i].get(), &byte, 1), 1);
  }

  std::vector<UniqueFd> readers_;
  std::vector<UniqueFd> writers_;
  std::vector<std::unique_ptr<WaitableFd>> waitables_;
};

// CPython: test_wait
TEST_F(WaitAnyTest, Wait) {
  EXPECT_THAT(*WaitAny(All(), absl::ZeroDuration()), IsEmpty());
  Write(1);
  Write(3);
  EXPECT_THAT(*WaitAny(All()), ElementsAre(1, 3));
  EXPECT_THAT(*WaitAny(All()), ElementsAre(1, 3)) << "it takes nothing";
  Read(1);
  EXPECT_THAT(*WaitAny(All()), ElementsAre(3));
  // The end is told as data is.
  writers_[0].Reset();
  EXPECT_THAT(*WaitAny(All()), ElementsAre(0, 3));
}

// CPython: test_wait_slow
TEST_F(WaitAnyTest, WaitSlow) {
  const pid_t waiter = gettid();
  std::thread writer([&] {
    // Until it waits.
    while (testing::ProcessState(waiter) != 'S') sched_yield();
    Write(2);
  });
  EXPECT_THAT(*WaitAny(All()), ElementsAre(2));
  writer.join();
}

// CPython: test_wait_socket
TEST_F(WaitAnyTest, WaitSocket) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd a(ends[0]);
  UniqueFd b(ends[1]);
  const WaitableFd socket(a.get());
  std::vector<const Waitable*> all = All();
  all.push_back(&socket);
  EXPECT_THAT(*WaitAny(all, absl::ZeroDuration()), IsEmpty());
  b.Reset();
  EXPECT_THAT(*WaitAny(all), ElementsAre(4));
}

// CPython: test_wait_timeout
TEST_F(WaitAnyTest, WaitTimeout) {
  const absl::Time start = absl::Now();
  EXPECT_THAT(*WaitAny(All(), absl::Milliseconds(30)), IsEmpty());
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(30));
  Write(0);
  EXPECT_THAT(*WaitAny(All(), absl::Seconds(20)), ElementsAre(0));
}

// CPython: test_neg_timeout
TEST_F(WaitAnyTest, NegTimeout) {
  EXPECT_THAT(*WaitAny(All(), absl::Seconds(-1)), IsEmpty());
  EXPECT_THAT(*WaitAny(All(), -absl::InfiniteDuration()), IsEmpty());
}

TEST_F(WaitAnyTest, OfNothing) {
  EXPECT_THAT(*WaitAny({}, absl::Milliseconds(1)), IsEmpty());
  EXPECT_EQ(WaitAny({}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(WaitAnyTest, WhatIsClosedIsNamed) {
  const WaitableFd closed(-1);
  std::vector<const Waitable*> all = All();
  all.push_back(&closed);
  absl::Status status = WaitAny(all, absl::ZeroDuration()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("number 4"));

  const int gone = dup(readers_[0].get());
  close(gone);
  const WaitableFd not_open(gone);
  all.back() = &not_open;
  status = WaitAny(all).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is not open"));
}

// Signals that interrupt poll all the time change nothing.
TEST_F(WaitAnyTest, AnEintrStorm) {
  struct sigaction action = {}, before;
  action.sa_handler = [](int) {};
  ASSERT_EQ(sigaction(SIGALRM, &action, &before), 0);
  const itimerval storm = {{0, 500}, {0, 500}};
  ASSERT_EQ(setitimer(ITIMER_REAL, &storm, nullptr), 0);
  const absl::Time start = absl::Now();
  EXPECT_THAT(*WaitAny(All(), absl::Milliseconds(50)), IsEmpty());
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(50));
  const itimerval calm = {};
  ASSERT_EQ(setitimer(ITIMER_REAL, &calm, nullptr), 0);
  ASSERT_EQ(sigaction(SIGALRM, &before, nullptr), 0);
}

}  // namespace
}  // namespace ipc
