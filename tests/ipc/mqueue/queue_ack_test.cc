// Explicit acknowledgement, TaskDone and Join. Tests named test_* in CPython's
// _TestQueue have the same names here.
#include <fcntl.h>
#include <unistd.h>

#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/block_word.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"
#include "tests/testing/woken.h"

namespace ipc::mqueue {
namespace {

using testing::Child;
using testing::Woken;

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr absl::Duration kNoTime = absl::Milliseconds(2);

Queue CreateExplicit(uint64_t slots = 8) {
  return *Queue::CreateAnonymous(
      {.slots = slots, .delivery = Delivery::kExplicitAck});
}

uint32_t BlocksInUse(Queue& queue) {
  const Arena& arena = QueueTestPeer::arena(queue);
  uint32_t used = 0;
  for (uint32_t i = 0; i < arena.block_count(); ++i) {
    used += arena.Load(i).IsInUse() ? 1 : 0;
  }
  return used;
}

TEST(QueueAckTest, AckEndsAMessage) {
  Queue queue = CreateExplicit();
  ASSERT_TRUE(queue.Send("message", {.type = 3}).ok());
  absl::StatusOr<Message> message = queue.ReceiveMessage();
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->text(), "message");
  EXPECT_EQ(message->type(), 3);
  EXPECT_FALSE(message->redelivered());
  EXPECT_EQ(queue.stats().unacked, 1u);
  EXPECT_EQ(queue.stats().received, 0u);
  EXPECT_TRUE(message->Ack().ok());
  EXPECT_EQ(message->Ack().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(message->GiveBack().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(message->data().empty());
  EXPECT_EQ(queue.stats().unacked, 0u);
  EXPECT_EQ(queue.stats().received, 1u);
  EXPECT_EQ(BlocksInUse(queue), 0u);
}

TEST(QueueAckTest, MessageDroppedIsDeliveredAgain) {
  Queue queue = CreateExplicit();
  ASSERT_TRUE(queue.Send("1", {.type = 5}).ok());
  ASSERT_TRUE(queue.Send("2").ok());
  { Message message = *queue.ReceiveMessage(); }
  EXPECT_EQ(queue.stats().pending, 2u);
  Message again = *queue.ReceiveMessage();
  EXPECT_EQ(again.text(), "1") << "before all others";
  EXPECT_EQ(again.type(), 5);
  EXPECT_TRUE(again.redelivered());
  EXPECT_TRUE(again.GiveBack().ok());
  again = *queue.ReceiveMessage();
  EXPECT_TRUE(again.redelivered());
  EXPECT_TRUE(again.Ack().ok());
  Message second = *queue.ReceiveMessage();
  EXPECT_EQ(second.text(), "2");
  EXPECT_FALSE(second.redelivered());
  EXPECT_EQ(queue.stats().redelivered, 2u);
}

TEST(QueueAckTest, MessageOfTheDeadIsDeliveredAgain) {
  Queue queue = CreateExplicit();
  ASSERT_TRUE(queue.Send("message").ok());
  for (int round = 0; round < 5; ++round) {
    Child reader = Child::Fork([&] {
      absl::StatusOr<Message> message = queue.ReceiveMessage();
      if (!message.ok() || message->redelivered() != (round > 0)) return 1;
      Child::StopSelf();
      return 2;
    });
    reader.AwaitStop();
    EXPECT_FALSE((*queue.TryReceiveMessage()).has_value());
    reader.Kill();
  }
  Message message = *queue.ReceiveMessage(kPatience);
  EXPECT_EQ(message.text(), "message");
  EXPECT_TRUE(message.redelivered());
  EXPECT_TRUE(message.Ack().ok());
  EXPECT_EQ(BlocksInUse(queue), 0u);
}

// A message that is kept does not keep the slot: others go on for laps.
TEST(QueueAckTest, MessageKeptDoesNotHoldUpTheRing) {
  Queue queue = CreateExplicit(2);
  ASSERT_TRUE(queue.Send("kept").ok());
  Message kept = *queue.ReceiveMessage();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(queue.Send(absl::StrCat(i), absl::ZeroDuration()).ok());
    Message message = *queue.ReceiveMessage(absl::ZeroDuration());
    EXPECT_EQ(message.text(), absl::StrCat(i));
    EXPECT_TRUE(message.Ack().ok());
  }
  EXPECT_EQ(kept.text(), "kept");
}

TEST(QueueAckTest, EndWaitsForWhatOthersHold) {
  Queue queue = CreateExplicit();
  ASSERT_TRUE(queue.Send("message").ok());
  Child reader = Child::Fork([&] {
    absl::StatusOr<Message> message = queue.ReceiveMessage();
    Child::StopSelf();
    return 2;
  });
  reader.AwaitStop();
  ASSERT_TRUE(queue.CloseForSend().ok());
  EXPECT_EQ(queue.ReceiveMessage(kNoTime).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  reader.Kill();
  Message message = *queue.ReceiveMessage(kPatience);
  EXPECT_EQ(message.text(), "message");
  // What we hold ourselves does not keep us waiting.
  EXPECT_EQ(queue.ReceiveMessage(kPatience).status().code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_TRUE(message.Ack().ok());
}

// A waiter for the end is told when the last message is acknowledged.
TEST(QueueAckTest, LastAckIsTheEnd) {
  Queue queue = CreateExplicit();
  // No tick within this test: only the Ack wakes it.
  QueueTestPeer::SetParkTick(queue, 2 * kPatience);
  ASSERT_TRUE(queue.Send("message").ok());
  Message message = *queue.ReceiveMessage();
  ASSERT_TRUE(queue.CloseForSend().ok());
  Child reader = Child::Fork([&] {
    return Woken(kPatience, [&] {
      return absl::IsOutOfRange(queue.ReceiveMessage(kPatience).status());
    });
  });
  reader.AwaitSleep();
  EXPECT_TRUE(message.Ack().ok());
  EXPECT_EQ(reader.Wait(), 0);
}

TEST(QueueAckTest, test_task_done) {
  Queue queue = CreateExplicit();
  EXPECT_EQ(queue.TaskDone().code(), absl::StatusCode::kFailedPrecondition);
  std::vector<Child> workers;
  for (int i = 0; i < 4; ++i) {
    workers.push_back(Child::Fork([&] {
      while (true) {
        absl::StatusOr<std::string> task = queue.Receive(kPatience);
        if (absl::IsOutOfRange(task.status())) return 0;
        if (!task.ok() || !queue.TaskDone().ok()) return 1;
      }
    }));
  }
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(queue.Send(absl::StrCat(i), kPatience).ok());
  }
  EXPECT_TRUE(queue.Join(kPatience).ok());
  EXPECT_EQ(queue.stats().received, 200u);
  EXPECT_EQ(queue.stats().unacked, 0u);
  ASSERT_TRUE(queue.CloseForSend().ok());
  for (Child& worker : workers) EXPECT_EQ(worker.Wait(), 0);
}

// A worker killed between its get and its task_done makes join wait for ever in
// Python; here another one gets the task.
TEST(QueueAckTest, JoinSurvivesAWorker) {
  Queue queue = CreateExplicit();
  ASSERT_TRUE(queue.Send("task").ok());
  Child worker = Child::Fork([&] {
    if (!queue.Receive().ok()) return 1;
    Child::StopSelf();
    return 2;
  });
  worker.AwaitStop();
  EXPECT_EQ(queue.Join(kNoTime).code(), absl::StatusCode::kDeadlineExceeded);
  worker.Kill();
  Child other = Child::Fork([&] {
    absl::StatusOr<std::string> task = queue.Receive(kPatience);
    return task.ok() && *task == "task" && queue.TaskDone().ok() ? 0 : 1;
  });
  EXPECT_TRUE(queue.Join(kPatience).ok());
  EXPECT_EQ(other.Wait(), 0);
}

TEST(QueueAckTest, TaskDoneInOrderOfReceiving) {
  Queue queue = CreateExplicit();
  for (const char* text : {"1", "2", "3"}) ASSERT_TRUE(queue.Send(text).ok());
  {
    Queue other =
        *Queue::FromFd(UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0)));
    for (const char* text : {"1", "2", "3"}) {
      EXPECT_EQ(*other.Receive(), text);
    }
    EXPECT_TRUE(other.TaskDone().ok());
    EXPECT_TRUE(other.TaskDone().ok());
    EXPECT_EQ(queue.stats().unacked, 1u);
  }
  // It went with "3" not done.
  Message message = *queue.ReceiveMessage(absl::ZeroDuration());
  EXPECT_EQ(message.text(), "3");
  EXPECT_TRUE(message.redelivered());
  EXPECT_TRUE(message.Ack().ok());
  EXPECT_TRUE(queue.Join(absl::ZeroDuration()).ok());
}

TEST(QueueAckTest, JoinWithAutoAckWaitsUntilAllIsReceived) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4});
  EXPECT_TRUE(queue.Join(absl::ZeroDuration()).ok());
  ASSERT_TRUE(queue.Send("1").ok());
  ASSERT_TRUE(queue.Send("2").ok());
  EXPECT_EQ(queue.Join(kNoTime).code(), absl::StatusCode::kDeadlineExceeded);
  Child reader = Child::Fork(
      [&] { return queue.Receive().ok() && queue.Receive().ok() ? 0 : 1; });
  EXPECT_TRUE(queue.Join(kPatience).ok());
  EXPECT_EQ(reader.Wait(), 0);
  EXPECT_EQ(queue.TaskDone().code(), absl::StatusCode::kFailedPrecondition);
}

// What is sent after Join began does not keep it from ending.
TEST(QueueAckTest, JoinEndsAlthoughOthersGoOnSending) {
  Queue queue = *Queue::CreateAnonymous({.slots = 16});
  Child sender = Child::Fork([&] {
    while (queue.Send("more", kPatience).ok()) continue;
    return 0;
  });
  Child receiver = Child::Fork([&] {
    while (queue.Receive(kPatience).ok()) continue;
    return 0;
  });
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(queue.Join(kPatience).ok());
  ASSERT_TRUE(queue.CloseForSend().ok());
  EXPECT_EQ(sender.Wait(), 0);
  EXPECT_EQ(receiver.Wait(), 0);
}

// A sender may go while its messages are unread: there is nothing of its own
// that would have to be flushed. In Python its exit waits for that, and so for
// ever, if it is waited for before they are read and they are more than a pipe
// holds, which is 64 KiB (CPython: bpo-issue 73983).
TEST(QueueAckTest, test_no_deadlock_with_unread_items) {
  constexpr size_t kPipe = 64 * 1024;
  for (const size_t bytes : {size_t{200}, 8 * kPipe}) {
    const uint64_t count = 16 * kPipe / bytes;
    Queue queue = *Queue::CreateAnonymous({.slots = count,
                                           .message_bytes = bytes,
                                           .delivery = Delivery::kExplicitAck,
                                           .arena_bytes = count * bytes * 2});
    const std::string text(bytes, 'x');
    Child sender = Child::Fork([&] {
      for (uint64_t i = 0; i < count; ++i) {
        if (!queue.Send(text, kPatience).ok()) return 1;
      }
      return 0;
    });
    EXPECT_EQ(sender.Wait(), 0);
    for (uint64_t i = 0; i < count; ++i) {
      ASSERT_EQ(*queue.Receive(kPatience), text);
      EXPECT_TRUE(queue.TaskDone().ok());
    }
  }
}

TEST(QueueAckTest, GiveBackWithAutoAckIsRefused) {
  Queue queue = *Queue::CreateAnonymous();
  ASSERT_TRUE(queue.Send("message").ok());
  Message message = *queue.ReceiveMessage();
  EXPECT_EQ(message.GiveBack().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(message.Ack().ok());
}

// A message too long for the buffer stays, also when it came back already.
TEST(QueueAckTest, BufferTooSmall) {
  Queue queue = CreateExplicit();
  ASSERT_TRUE(queue.Send("message").ok());
  std::byte buffer[7];
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(queue.ReceiveInto(absl::MakeSpan(buffer, 6)).status().code(),
              absl::StatusCode::kInvalidArgument);
    { Message back = *queue.ReceiveMessage(absl::ZeroDuration()); }
  }
  EXPECT_EQ(*queue.ReceiveInto(absl::MakeSpan(buffer)), 7u);
  EXPECT_TRUE(queue.TaskDone().ok());
  EXPECT_EQ(BlocksInUse(queue), 0u);
}

}  // namespace
}  // namespace ipc::mqueue
