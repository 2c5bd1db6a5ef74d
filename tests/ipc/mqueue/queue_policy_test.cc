// Priorities, what happens when it is full, batches, roles, and polling.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/waitable.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/block_word.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/slot_ring.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"
#include "tests/testing/woken.h"

namespace ipc::mqueue {
namespace {

using testing::Child;
using testing::Woken;

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

UniqueFd Duplicate(const Queue& queue) {
  return UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0));
}

uint32_t FreeBlocks(Queue& queue) {
  const Arena& arena = QueueTestPeer::arena(queue);
  uint32_t free = 0;
  for (uint32_t i = 0; i < arena.block_count(); ++i) {
    free += arena.Load(i).IsInUse() ? 0 : 1;
  }
  return free;
}

TEST(QueuePriorityTest, HigherOnesComeFirst) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4, .priorities = 8});
  for (uint32_t priority : {3, 0, 7, 3, 5}) {
    ASSERT_TRUE(
        queue.Send(absl::StrCat(priority), {.priority = priority}).ok());
  }
  EXPECT_EQ(queue.ApproximateSize(), 5u);
  EXPECT_EQ(queue.stats().pending, 5u);
  for (const char* expected : {"7", "5", "3", "3", "0"}) {
    EXPECT_EQ(*queue.Receive(), expected);
  }
  EXPECT_EQ(queue.Send("x", {.priority = 8}).code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(queue.Send("low").ok());
  ASSERT_TRUE(queue.CloseForSend().ok());
  EXPECT_EQ(*queue.Receive(), "low");
  EXPECT_EQ(queue.Receive().status().code(), absl::StatusCode::kOutOfRange);
}

// A flood of one priority leaves room for the others.
TEST(QueuePriorityTest, EachHasItsOwnSlots) {
  Queue queue = *Queue::CreateAnonymous({.slots = 2, .priorities = 2});
  ASSERT_TRUE(queue.TrySend("1").ok());
  ASSERT_TRUE(queue.TrySend("2").ok());
  EXPECT_EQ(queue.TrySend("3").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(queue.TrySend("urgent", {.priority = 1}).ok());
  EXPECT_EQ(*queue.Receive(), "urgent");
}

// Senders of different priorities wait on the same bell: the one for which
// there is room has to be among those who are woken.
TEST(QueuePriorityTest, SenderOfTheRightPriorityIsWoken) {
  Queue queue = *Queue::CreateAnonymous({.slots = 1, .priorities = 2});
  // No tick within this test: only a receive wakes them.
  QueueTestPeer::SetParkTick(queue, 2 * kPatience);
  for (int round = 0; round < 20; ++round) {
    ASSERT_TRUE(queue.Send("low").ok());
    ASSERT_TRUE(queue.Send("high", {.priority = 1}).ok());
    Child low = Child::Fork([&] {
      return Woken(kPatience,
                   [&] { return queue.Send("low", kPatience).ok(); });
    });
    Child high = Child::Fork([&] {
      return Woken(kPatience, [&] {
        return queue.Send("high", {.timeout = kPatience, .priority = 1}).ok();
      });
    });
    low.AwaitSleep();
    high.AwaitSleep();
    EXPECT_EQ(*queue.Receive(kPatience), "high");
    EXPECT_EQ(high.Wait(), 0);
    EXPECT_EQ(*queue.Receive(kPatience), "high");
    EXPECT_EQ(*queue.Receive(kPatience), "low");
    EXPECT_EQ(low.Wait(), 0);
    EXPECT_EQ(*queue.Receive(kPatience), "low");
  }
}

TEST(QueuePolicyTest, DropNewest) {
  Queue queue = *Queue::CreateAnonymous(
      {.slots = 2, .full_policy = FullPolicy::kDropNewest});
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(queue.Send(absl::StrCat(i)).ok());
  EXPECT_EQ(queue.stats().dropped, 3u);
  EXPECT_EQ(queue.stats().sent, 2u);
  EXPECT_EQ(*queue.Receive(), "0");
  EXPECT_EQ(*queue.Receive(), "1");
  EXPECT_EQ(*queue.TryReceive(), std::nullopt);
}

TEST(QueuePolicyTest, OverwriteOldest) {
  Queue queue = *Queue::CreateAnonymous(
      {.slots = 4, .full_policy = FullPolicy::kOverwriteOldest});
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(queue.Send(absl::StrCat(i)).ok());
  EXPECT_EQ(queue.stats().dropped, 96u);
  EXPECT_EQ(queue.stats().sent, 100u);
  EXPECT_EQ(queue.stats().received, 0u);
  for (int i = 96; i < 100; ++i) EXPECT_EQ(*queue.Receive(), absl::StrCat(i));
  EXPECT_EQ(queue.stats().received, 4u);
}

TEST(QueuePolicyTest, OverwriteOldestInTheArena) {
  for (const Delivery delivery : {Delivery::kAutoAck, Delivery::kExplicitAck}) {
    Queue queue =
        *Queue::CreateAnonymous({.slots = 8,
                                 .message_bytes = 4096,
                                 .full_policy = FullPolicy::kOverwriteOldest,
                                 .delivery = delivery,
                                 .arena_bytes = 8192,
                                 .block_bytes = 4096});
    for (int i = 0; i < 50; ++i) {
      EXPECT_TRUE(queue.Send(std::string(4000, static_cast<char>(i))).ok());
    }
    EXPECT_EQ(queue.stats().dropped, 48u);
    {
      Message a = *queue.ReceiveMessage(), b = *queue.ReceiveMessage();
      EXPECT_EQ(a.data()[0], std::byte{48});
      EXPECT_EQ(b.data()[0], std::byte{49});
      // All memory is being read: there is nothing to drop but the new one.
      EXPECT_TRUE(queue.Send(std::string(4000, 'x')).ok());
      EXPECT_EQ(queue.stats().dropped, 49u);
      EXPECT_EQ(a.data()[3999], std::byte{48});
      EXPECT_TRUE(a.Ack().ok());
      EXPECT_TRUE(b.Ack().ok());
    }
    EXPECT_EQ(queue.stats().pending, 0u);
  }
}

// Of a full arena, and of full slots.
TEST(QueuePolicyTest, DropNewestAndFailInTheArena) {
  for (const FullPolicy policy : {FullPolicy::kDropNewest, FullPolicy::kFail}) {
    for (const Delivery delivery :
         {Delivery::kAutoAck, Delivery::kExplicitAck}) {
      for (const bool slots_are_few : {false, true}) {
        SCOPED_TRACE(absl::StrCat("policy ", static_cast<int>(policy),
                                  ", delivery ", static_cast<int>(delivery),
                                  slots_are_few ? ", slots" : ", arena"));
        Queue queue = *Queue::CreateAnonymous(
            {.slots = slots_are_few ? 2u : 8u,
             .message_bytes = 4096,
             .full_policy = policy,
             .delivery = delivery,
             .arena_bytes = slots_are_few ? 65536u : 8192u,
             .block_bytes = 4096});
        const uint32_t free_before = FreeBlocks(queue);
        for (int i = 0; i < 5; ++i) {
          const absl::Status sent =
              queue.Send(std::string(4000, static_cast<char>(i)));
          EXPECT_EQ(sent.code(), i < 2 || policy == FullPolicy::kDropNewest
                                     ? absl::StatusCode::kOk
                                     : absl::StatusCode::kResourceExhausted);
        }
        const bool drops = policy == FullPolicy::kDropNewest;
        EXPECT_EQ(queue.stats().dropped, drops ? 3u : 0u);
        EXPECT_EQ(queue.stats().sent, 2u);
        for (int i = 0; i < 2; ++i) {
          Message message = *queue.ReceiveMessage();
          EXPECT_EQ(message.data()[3999], static_cast<std::byte>(i));
          EXPECT_TRUE(message.Ack().ok());
        }
        EXPECT_FALSE((*queue.TryReceiveMessage()).has_value());
        EXPECT_EQ(FreeBlocks(queue), free_before)
            << "what was not sent keeps no memory";
      }
    }
  }
}

// A loan has its memory already; what the policy is about is the slot.
TEST(QueuePolicyTest, LoansUnderEachPolicy) {
  for (const FullPolicy policy : {FullPolicy::kFail, FullPolicy::kDropNewest,
                                  FullPolicy::kOverwriteOldest}) {
    for (const size_t bytes : {size_t{100}, size_t{4096}}) {
      SCOPED_TRACE(absl::StrCat("policy ", static_cast<int>(policy), ", ",
                                bytes, " bytes"));
      Queue queue = *Queue::CreateAnonymous({.slots = 2,
                                             .message_bytes = 4096,
                                             .full_policy = policy,
                                             .arena_bytes = 32768,
                                             .block_bytes = 4096});
      const uint32_t free_before = FreeBlocks(queue);
      for (int i = 0; i < 4; ++i) {
        Loan loan = *queue.TryLoan(bytes);
        std::fill(loan.data().begin(), loan.data().end(),
                  static_cast<std::byte>(i));
        // Not std::move: a Send that fails leaves it, as is to be shown.
        const absl::Status sent = queue.Send(static_cast<Loan&&>(loan));
        if (i >= 2 && policy == FullPolicy::kFail) {
          EXPECT_EQ(sent.code(), absl::StatusCode::kResourceExhausted);
          EXPECT_EQ(loan.data().size(), bytes) << "still ours";
        } else {
          EXPECT_TRUE(sent.ok()) << sent;
          EXPECT_TRUE(loan.data().empty());
        }
      }
      const bool overwrites = policy == FullPolicy::kOverwriteOldest;
      EXPECT_EQ(queue.stats().dropped, policy == FullPolicy::kFail ? 0u : 2u);
      for (int i = 0; i < 2; ++i) {
        Message message = *queue.ReceiveMessage();
        ASSERT_EQ(message.data().size(), bytes);
        EXPECT_EQ(message.data()[bytes - 1],
                  static_cast<std::byte>(overwrites ? i + 2 : i));
      }
      EXPECT_FALSE((*queue.TryReceive()).has_value());
      EXPECT_EQ(FreeBlocks(queue), free_before);
    }
  }
}

// A reader that was stopped with a message in its hands does not stop a sender
// that overwrites.
TEST(QueuePolicyTest, OverwriteNeverWaits) {
  Queue queue = *Queue::CreateAnonymous(
      {.slots = 1, .full_policy = FullPolicy::kOverwriteOldest});
  ASSERT_TRUE(queue.Send("1").ok());
  Child reader = Child::Fork([&] {
    SlotRing::Claim claim;
    if (QueueTestPeer::BeginReceive(queue, &claim) != SlotRing::Outcome::kOk) {
      return 1;
    }
    Child::StopSelf();
    return QueueTestPeer::ring(queue).CommitReceive(claim) ? 0 : 2;
  });
  reader.AwaitStop();
  EXPECT_TRUE(queue.Send("2").ok());
  EXPECT_EQ(queue.stats().dropped, 1u);
  reader.Continue();
  EXPECT_EQ(reader.Wait(), 0);
  EXPECT_TRUE(queue.Send("3").ok());
  EXPECT_EQ(*queue.Receive(), "3");
}

// A flood against readers: everything that comes is in order, and sent is what
// was received or dropped.
TEST(QueuePolicyTest, OverwriteWhileOthersReceive) {
  Queue queue = *Queue::CreateAnonymous(
      {.slots = 4, .full_policy = FullPolicy::kOverwriteOldest});
  constexpr int kMessages = 100'000;
  Child sender = Child::Fork([&] {
    for (int i = 0; i < kMessages; ++i) {
      if (!queue.Send(absl::StrCat(i)).ok()) return 1;
    }
    return queue.CloseForSend().ok() ? 0 : 2;
  });
  int last = -1;
  uint64_t received = 0;
  while (true) {
    absl::StatusOr<std::string> text = queue.Receive(kPatience);
    if (!text.ok()) {
      EXPECT_EQ(text.status().code(), absl::StatusCode::kOutOfRange);
      break;
    }
    const int number = std::stoi(*text);
    EXPECT_GT(number, last);
    last = number;
    ++received;
  }
  EXPECT_EQ(sender.Wait(), 0);
  EXPECT_EQ(queue.stats().received, received);
  EXPECT_EQ(queue.stats().received + queue.stats().dropped,
            static_cast<uint64_t>(kMessages));
}

TEST(QueuePolicyTest, Roles) {
  Queue queue = *Queue::CreateAnonymous();
  Queue sender = *Queue::FromFd(Duplicate(queue), Role::kSend);
  Queue receiver = *Queue::FromFd(Duplicate(queue), Role::kReceive);
  EXPECT_TRUE(sender.Send("message").ok());
  absl::Status status = sender.TryReceive().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(status.message(), HasSubstr("Role::kSend"));
  EXPECT_EQ(receiver.Send("no").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(receiver.TryLoan(1).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(*receiver.Receive(), "message");
}

TEST(QueuePolicyTest, BatchTakesWhatIsThere) {
  Queue queue = *Queue::CreateAnonymous();
  EXPECT_EQ(queue.ReceiveBatch(0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(queue.ReceiveBatch(4, absl::Milliseconds(1)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(
        queue.Send(absl::StrCat(i), {.type = static_cast<uint16_t>(i)}).ok());
  }
  ASSERT_TRUE(queue.CloseForSend().ok());
  std::vector<Message> batch = *queue.ReceiveBatch(4);
  ASSERT_EQ(batch.size(), 4u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(batch[i].text(), absl::StrCat(i));
    EXPECT_EQ(batch[i].type(), i);
  }
  EXPECT_EQ(queue.ReceiveBatch(4)->size(), 2u);
  EXPECT_EQ(queue.ReceiveBatch(4).status().code(),
            absl::StatusCode::kOutOfRange);
}

TEST(QueuePolicyTest, HighWaterMark) {
  Queue queue = *Queue::CreateAnonymous({.slots = 64});
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(queue.Send("x").ok());
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(queue.Receive().ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(queue.Send("x").ok());
  EXPECT_GE(queue.stats().high_water, 40u);
  EXPECT_LE(queue.stats().high_water, 47u);
}

bool IsReadable(const Waitable& waitable, absl::Duration timeout) {
  pollfd p = {waitable.poll_fd(), POLLIN, 0};
  return poll(&p, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout))) == 1;
}

// Takes everything, which makes the descriptor unreadable.
int Drain(Queue& queue) {
  int count = 0;
  while ((*queue.TryReceive()).has_value()) ++count;
  return count;
}

TEST(QueuePollTest, ReadableWhenThereIsAMessage) {
  Queue queue = *Queue::CreateAnonymous();
  // No tick within this test: only a Send makes it readable.
  QueueTestPeer::SetParkTick(queue, kPatience);
  ASSERT_TRUE(queue.Send("before").ok());
  EXPECT_EQ(queue.poll_fd(), -1);
  ASSERT_TRUE(queue.EnablePolling().ok());
  EXPECT_TRUE(IsReadable(queue, kPatience)) << "there was one already";
  EXPECT_EQ(Drain(queue), 1);
  EXPECT_FALSE(IsReadable(queue, absl::Milliseconds(20)));
  for (int i = 0; i < 100; ++i) {
    Child child = Child::Fork(
        [&] { return queue.Send("1").ok() && queue.Send("2").ok() ? 0 : 1; });
    int received = 0;
    while (received < 2) {
      ASSERT_TRUE(IsReadable(queue, kPatience));
      received += Drain(queue);
    }
    EXPECT_EQ(child.Wait(), 0);
    EXPECT_FALSE(IsReadable(queue, absl::ZeroDuration()));
  }
  ASSERT_TRUE(queue.CloseForSend().ok());
  EXPECT_TRUE(IsReadable(queue, kPatience));
  EXPECT_EQ(queue.TryReceive().status().code(), absl::StatusCode::kOutOfRange);
}

// A child that looks into the queue does not take its parent's wake-up away.
TEST(QueuePollTest, ChildDoesNotDrainItsParents) {
  Queue queue = *Queue::CreateAnonymous();
  QueueTestPeer::SetParkTick(queue, kPatience);
  ASSERT_TRUE(queue.EnablePolling().ok());
  EXPECT_EQ(Drain(queue), 0);
  Child child = Child::Fork([&] {
    if (queue.poll_fd() != -1 || !queue.Send("message").ok()) return 1;
    if (Drain(queue) != 1) return 2;
    return queue.EnablePolling().ok() && queue.poll_fd() >= 0 &&
                   queue.Send("for the parent").ok()
               ? 0
               : 3;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_TRUE(IsReadable(queue, kPatience));
  EXPECT_EQ(Drain(queue), 1);
}

// Two that poll the same queue, in an epoll set: each message wakes who can
// take it.
TEST(QueuePollTest, TwoPollers) {
  Queue queue = *Queue::CreateAnonymous();
  constexpr int kMessages = 2000;
  const auto receive = [&queue] {
    Queue own = *Queue::FromFd(Duplicate(queue));
    QueueTestPeer::SetParkTick(own, kPatience);
    if (!own.EnablePolling().ok()) return -1;
    UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event = {};
    event.events = EPOLLIN;
    epoll_ctl(epoll.get(), EPOLL_CTL_ADD, own.poll_fd(), &event);
    while (true) {
      if (epoll_wait(epoll.get(), &event, 1, 60'000) != 1) return 1;
      absl::StatusOr<std::optional<std::string>> message;
      do {
        message = own.TryReceive();
      } while (message.ok() && message->has_value());
      if (!message.ok()) return absl::IsOutOfRange(message.status()) ? 0 : 2;
    }
  };
  Child a = Child::Fork(receive);
  Child b = Child::Fork(receive);
  for (int i = 0; i < kMessages; ++i) {
    ASSERT_TRUE(queue.Send("message", kPatience).ok());
    // So that both come to wait now and then.
    if (i % 10 == 0) absl::SleepFor(absl::Microseconds(50));
  }
  ASSERT_TRUE(queue.CloseForSend().ok());
  EXPECT_EQ(a.Wait(), 0);
  EXPECT_EQ(b.Wait(), 0);
  EXPECT_EQ(queue.stats().received, static_cast<uint64_t>(kMessages));
}

// A sender killed before it could make the descriptor readable: the tick does.
TEST(QueuePollTest, TickFindsWhatTheDeadDidNotTell) {
  Queue queue = *Queue::CreateAnonymous();
  ASSERT_TRUE(queue.EnablePolling().ok());
  EXPECT_EQ(Drain(queue), 0);
  Child sender = Child::Fork([&] {
    SlotRing::Claim claim;
    if (QueueTestPeer::BeginSend(queue, &claim) != SlotRing::Outcome::kOk) {
      return 1;
    }
    QueueTestPeer::ring(queue).Fill(claim, {}, 0);
    // The commit alone, without the bell.
    return QueueTestPeer::ring(queue).CommitSend(claim) ? 0 : 2;
  });
  EXPECT_EQ(sender.Wait(), 0);
  EXPECT_TRUE(IsReadable(queue, kPatience));
  EXPECT_EQ(Drain(queue), 1);
}

}  // namespace
}  // namespace ipc::mqueue
