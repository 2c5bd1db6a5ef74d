// Real processes killed, stopped and forked at the worst moment.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/slot_ring.h"
#include "tests/ipc/mqueue/numbered_message.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

// Long enough never to pass unless something hangs.
constexpr absl::Duration kPatience = absl::Seconds(60);

// Claims a slot for sending, writes half a message and stops.
int StopWhileWriting(Queue& queue, bool commit) {
  SlotRing::Claim claim;
  if (QueueTestPeer::BeginSend(queue, &claim) != SlotRing::Outcome::kOk) {
    return 1;
  }
  const std::string text = NumberedMessage{7, 7}.Encode();
  const absl::Span<const std::byte> message(
      reinterpret_cast<const std::byte*>(text.data()), text.size());
  QueueTestPeer::ring(queue).Fill(claim, message.first(10), 0);
  Child::StopSelf();
  QueueTestPeer::ring(queue).Fill(claim, message, 0);
  return commit && QueueTestPeer::ring(queue).CommitSend(claim) ? 0 : 2;
}

int StopWhileReading(Queue& queue) {
  SlotRing::Claim claim;
  if (QueueTestPeer::BeginReceive(queue, &claim) != SlotRing::Outcome::kOk) {
    return 1;
  }
  Child::StopSelf();
  return QueueTestPeer::ring(queue).CommitReceive(claim) ? 0 : 2;
}

class QueueCrashTest : public ::testing::TestWithParam<int> {
 protected:
  // Of few slots, so that every position next to the ends of the ring occurs.
  Queue queue_ =
      *Queue::CreateAnonymous({.slots = static_cast<uint64_t>(GetParam())});
};

INSTANTIATE_TEST_SUITE_P(Slots, QueueCrashTest, ::testing::Values(1, 2, 4, 64));

TEST_P(QueueCrashTest, SlotOfAWriterKilledIsSkipped) {
  for (int round = 0; round < 5; ++round) {
    Child writer = Child::Fork([&] { return StopWhileWriting(queue_, false); });
    writer.AwaitStop();
    writer.Kill();
    // With one slot, it is the sender who finds the ring blocked.
    ASSERT_TRUE(queue_.Send("after", kPatience).ok());
    EXPECT_EQ(*queue_.Receive(kPatience), "after");
  }
  EXPECT_EQ(queue_.stats().skipped, 5u);
  EXPECT_EQ(queue_.stats().reaped, 5u);
  EXPECT_EQ(queue_.stats().sent, 5u);
  EXPECT_EQ(queue_.stats().received, 5u);
}

// Those who only poll never sleep, and still get past the dead.
TEST_P(QueueCrashTest, PollersGetPastTheDead) {
  Child writer = Child::Fork([&] { return StopWhileWriting(queue_, false); });
  writer.AwaitStop();
  writer.Kill();
  const absl::Time give_up = absl::Now() + kPatience;
  while (!queue_.TrySend("after").ok()) ASSERT_LT(absl::Now(), give_up);
  absl::StatusOr<std::optional<std::string>> message;
  do {
    ASSERT_LT(absl::Now(), give_up);
    message = queue_.TryReceive();
  } while (message.ok() && *message == std::nullopt);
  EXPECT_EQ(*message, "after");

  ASSERT_TRUE(queue_.TrySend("twice").ok());
  Child reader = Child::Fork([&] { return StopWhileReading(queue_); });
  reader.AwaitStop();
  reader.Kill();
  do {
    ASSERT_LT(absl::Now(), give_up);
    message = queue_.TryReceive();
  } while (message.ok() && *message == std::nullopt);
  EXPECT_EQ(*message, "twice");
}

TEST_P(QueueCrashTest, MessageOfAReaderKilledIsRedelivered) {
  for (int round = 0; round < 5; ++round) {
    ASSERT_TRUE(queue_.Send("message").ok());
    Child reader = Child::Fork([&] { return StopWhileReading(queue_); });
    reader.AwaitStop();
    reader.Kill();
    EXPECT_EQ(*queue_.Receive(kPatience), "message");
  }
  EXPECT_EQ(*queue_.TryReceive(), std::nullopt);
  EXPECT_EQ(queue_.stats().redelivered, 5u);
  EXPECT_EQ(queue_.stats().received, 5u);
}

// The ring has come round to a message that its dead reader still holds.
TEST_P(QueueCrashTest, SenderGetsPastAReaderKilled) {
  ASSERT_TRUE(queue_.Send("first").ok());
  Child reader = Child::Fork([&] { return StopWhileReading(queue_); });
  reader.AwaitStop();
  for (int i = 1; i < GetParam(); ++i) ASSERT_TRUE(queue_.TrySend("x").ok());
  ASSERT_FALSE(queue_.TrySend("no room").ok());
  reader.Kill();
  Child sender = Child::Fork([&] { return queue_.Send("last").ok() ? 0 : 1; });
  // The redelivered one comes once the death is seen, perhaps after others.
  std::multiset<std::string> expected = {"first", "last"}, received;
  for (int i = 1; i < GetParam(); ++i) expected.insert("x");
  for (int i = 0; i <= GetParam(); ++i) {
    received.insert(*queue_.Receive(kPatience));
  }
  EXPECT_EQ(received, expected);
  EXPECT_EQ(sender.Wait(), 0);
}

// A message that is being received when the queue is closed may come back, so
// the end is not told before.
TEST_P(QueueCrashTest, EndWaitsForAReaderThatMayDie) {
  ASSERT_TRUE(queue_.Send("message").ok());
  Child reader = Child::Fork([&] { return StopWhileReading(queue_); });
  reader.AwaitStop();
  ASSERT_TRUE(queue_.CloseForSend().ok());
  EXPECT_EQ(queue_.Receive(absl::Milliseconds(1)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  reader.Kill();
  EXPECT_EQ(*queue_.Receive(kPatience), "message");
  EXPECT_EQ(queue_.Receive(kPatience).status().code(),
            absl::StatusCode::kOutOfRange);
}

// Stopped is not dead, however often a waiter looks.
TEST_P(QueueCrashTest, WriterStoppedIsNotSkipped) {
  Child writer = Child::Fork([&] { return StopWhileWriting(queue_, true); });
  writer.AwaitStop();
  EXPECT_EQ(queue_.Receive(6 * Queue::kParkTick).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(queue_.stats().reaped, 0u);
  writer.Continue();
  absl::StatusOr<std::string> text = queue_.Receive(kPatience);
  ASSERT_TRUE(text.ok());
  ASSERT_TRUE(NumberedMessage::Decode(*text).has_value());
  EXPECT_EQ(NumberedMessage::Decode(*text)->number, 7u);
  EXPECT_EQ(writer.Wait(), 0);
}

TEST_P(QueueCrashTest, ReaderStoppedKeepsItsMessage) {
  ASSERT_TRUE(queue_.Send("message").ok());
  Child reader = Child::Fork([&] { return StopWhileReading(queue_); });
  reader.AwaitStop();
  EXPECT_EQ(queue_.Receive(6 * Queue::kParkTick).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  reader.Continue();
  EXPECT_EQ(reader.Wait(), 0);
  EXPECT_EQ(*queue_.TryReceive(), std::nullopt);
  EXPECT_EQ(queue_.stats().received, 1u);
}

// A writer is killed whose child, forked while it was attached, lives on.
TEST_P(QueueCrashTest, ParentKilledWhileItsChildLives) {
  Queue up = *Queue::CreateAnonymous(), down = *Queue::CreateAnonymous();
  Child parent = Child::Fork([&] {
    if (fork() == 0) {
      // Attaches as itself, and outlives the parent.
      const bool good = queue_.TryReceive().ok() && up.Send("ready").ok() &&
                        down.Receive(kPatience).ok() &&
                        queue_.Send("orphan", kPatience).ok();
      _exit(good ? 0 : 1);
    }
    return StopWhileWriting(queue_, false);
  });
  parent.AwaitStop();
  EXPECT_EQ(*up.Receive(kPatience), "ready");
  parent.Kill();
  ASSERT_TRUE(queue_.Send("after", kPatience).ok());
  EXPECT_EQ(*queue_.Receive(kPatience), "after");
  EXPECT_EQ(queue_.stats().skipped, 1u);
  ASSERT_TRUE(down.Send("go on").ok());
  EXPECT_EQ(*queue_.Receive(kPatience), "orphan");
}

// A sleeping receiver is killed, perhaps as the one who was woken.
TEST_P(QueueCrashTest, SleepersKilledTakeNoWakeUpAlong) {
  for (int round = 0; round < 10; ++round) {
    Child victim = Child::Fork([&] { return queue_.Receive().ok() ? 0 : 1; });
    Child survivor = Child::Fork([&] {
      while (true) {
        absl::StatusOr<std::string> message = queue_.Receive(kPatience);
        if (!message.ok()) return 1;
        if (*message == "second") return 0;
      }
    });
    ASSERT_TRUE(queue_.Send("first", kPatience).ok());
    victim.Kill();
    ASSERT_TRUE(queue_.Send("second", kPatience).ok());
    EXPECT_EQ(survivor.Wait(), 0);
  }
}

}  // namespace
}  // namespace ipc::mqueue
