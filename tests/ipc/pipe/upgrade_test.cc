#include "ipc/pipe/upgrade.h"

#include <signal.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/wait_any.h"
#include "ipc/pipe/connection.h"
#include "ipc/pipe/ring.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::pipe {
namespace {

using testing::Child;

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Minutes(2);

class UpgradeTest : public ::testing::Test {
 protected:
  UpgradeTest() : ends_(*Connection::CreatePair()) {}
  Connection& ours() { return ends_.first; }
  Connection& theirs() { return ends_.second; }

  std::pair<Connection, Connection> ends_;
};

TEST_F(UpgradeTest, MessagesGoThroughTheRing) {
  Child child = Child::Fork([&] {
    ours().Close();
    auto sender = UpgradeToSender(theirs(), {.capacity_bytes = 4096}, kLong);
    if (!sender.ok()) return 1;
    // Many times what the ring holds.
    for (int i = 0; i < 1000; ++i) {
      if (!sender->Send(std::string(100, 'a' + i % 26), kLong).ok()) return 2;
    }
    return theirs().Send("after", kLong).ok() ? 0 : 3;
  });
  theirs().Close();
  auto receiver = UpgradeToReceiver(ours(), kLong);
  ASSERT_THAT(receiver, IsOk());
  for (int i = 0; i < 1000; ++i) {
    auto view = receiver->Receive(kLong);
    ASSERT_THAT(view, IsOk());
    ASSERT_EQ(view->text(), std::string(100, 'a' + i % 26));
  }
  EXPECT_THAT(receiver->Receive(kLong),
              StatusIs(StatusCode::kOutOfRange, HasSubstr("")));
  // The Connection is there as before.
  EXPECT_THAT(ours().Receive(kLong), IsOkAndHolds("after"));
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(UpgradeTest, ARingForEachDirection) {
  Child child = Child::Fork([&] {
    ours().Close();
    auto in = UpgradeToReceiver(theirs(), kLong);
    auto out = UpgradeToSender(theirs(), {}, kLong);
    if (!in.ok() || !out.ok()) return 1;
    auto question = in->Receive(kLong);
    return question.ok() && out->Send(question->text(), kLong).ok() ? 0 : 2;
  });
  theirs().Close();
  auto out = UpgradeToSender(ours(), {}, kLong);
  auto in = UpgradeToReceiver(ours(), kLong);
  ASSERT_THAT(out, IsOk());
  ASSERT_THAT(in, IsOk());
  ASSERT_THAT(out->Send("there and back", kLong), IsOk());
  auto answer = in->Receive(kLong);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->text(), "there and back");
  EXPECT_EQ(child.Wait(), 0);
}

// The kernel tells at once, where the ring would be asked once in a tick.
TEST_F(UpgradeTest, TheConnectionTellsOfADeathOfThePeer) {
  Child child = Child::Fork([&] {
    ours().Close();
    auto sender = UpgradeToSender(theirs(), {}, kLong);
    (void)sender->Send("the last one", kLong);
    return raise(SIGKILL);
  });
  theirs().Close();
  auto receiver = UpgradeToReceiver(ours(), kLong);
  ASSERT_THAT(receiver, IsOk());
  EXPECT_THAT(WaitAny({&ours()}, kLong), IsOkAndHolds(ElementsAre(0)));
  EXPECT_EQ(child.Wait(), -SIGKILL);
  {
    auto view = receiver->Receive(kLong);
    ASSERT_THAT(view, IsOk());
    EXPECT_EQ(view->text(), "the last one");
  }
  EXPECT_THAT(receiver->Receive(kLong),
              StatusIs(StatusCode::kUnavailable, HasSubstr("died")));
}

TEST_F(UpgradeTest, AMessageThatComesFirstIsKept) {
  ASSERT_THAT(theirs().Send("first"), IsOk());
  EXPECT_THAT(UpgradeToReceiver(ours(), kLong),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("kept")));
  EXPECT_THAT(ours().Receive(kLong), IsOkAndHolds("first"));
  auto sender = UpgradeToSender(theirs());
  EXPECT_THAT(UpgradeToReceiver(ours(), kLong), IsOk());
}

TEST_F(UpgradeTest, WhatIsNoRingIsRefused) {
  ASSERT_THAT(theirs().SendFds({0}), IsOk());
  EXPECT_FALSE(UpgradeToReceiver(ours(), kLong).ok());
  EXPECT_THAT(UpgradeToReceiver(ours(), absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
}

TEST_F(UpgradeTest, APeerThatNeverReads) {
  // Until the kernel has no room.
  while (ours().Send(std::string(4000, 'x'), absl::ZeroDuration()).ok()) {
  }
  constexpr absl::Duration kShort = absl::Milliseconds(20);
  const absl::Time begin = absl::Now();
  EXPECT_THAT(UpgradeToSender(ours(), {}, kShort),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  EXPECT_GE(absl::Now() - begin, kShort);
  // Nothing was sent: it may be repeated.
  while (theirs().Receive(absl::ZeroDuration()).ok()) {
  }
  auto sender = UpgradeToSender(ours(), {}, kLong);
  ASSERT_THAT(sender, IsOk());
  EXPECT_THAT(UpgradeToReceiver(theirs(), kLong), IsOk());
}

// A receiver that reads ahead would have dropped the ring.
TEST_F(UpgradeTest, WhoReadsAheadCannotTakeOne) {
  ends_ = *Connection::CreatePair(/*duplex=*/true, {.read_ahead = true});
  ASSERT_THAT(UpgradeToSender(theirs()), IsOk());
  EXPECT_THAT(
      UpgradeToReceiver(ours(), absl::ZeroDuration()),
      StatusIs(StatusCode::kFailedPrecondition, HasSubstr("read_ahead")));
}

TEST_F(UpgradeTest, APipeCannotHandARingOver) {
  auto pipe = Connection::CreatePair(/*duplex=*/false);
  EXPECT_THAT(UpgradeToSender(pipe->second),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("unix")));
}

}  // namespace
}  // namespace ipc::pipe
