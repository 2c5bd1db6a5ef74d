// No wake-up is lost. Every queue here has a park tick that is longer than the
// tests' patience, and everybody sleeps before what it waits for is done; so
// who is not woken fails, where otherwise it would only be late.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/policy.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/slot_ring.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"
#include "tests/testing/woken.h"

namespace ipc::mqueue {
namespace {

using testing::Child;
using testing::Woken;

// Long enough never to pass unless something hangs.
constexpr absl::Duration kPatience = absl::Seconds(20);

Queue Create(const Options& options) {
  Queue queue = *Queue::CreateAnonymous(options);
  QueueTestPeer::SetParkTick(queue, 2 * kPatience);
  return queue;
}

// The places where messages lie: in slots, in blocks, in blocks to be
// acknowledged. `room` of them fit.
struct Place {
  const char* name;
  size_t bytes;
  Delivery delivery;

  Options WithRoomFor(uint64_t room) const {
    const bool has_arena = bytes > 240 || delivery == Delivery::kExplicitAck;
    return {.slots = room,
            .message_bytes = bytes,
            .delivery = delivery,
            .arena_bytes = has_arena ? room * 1024 : 0,
            .block_bytes = has_arena ? 1024u : 0};
  }
  std::string Text(char c) const { return std::string(bytes, c); }
};

class QueueWakeTest : public ::testing::TestWithParam<Place> {
 protected:
  Child Receiver(Queue& queue, char expected) {
    return Child::Fork([&queue, expected] {
      return Woken(kPatience, [&] {
        absl::StatusOr<Message> message = queue.ReceiveMessage(kPatience);
        return message.ok() && message->text() == GetParam().Text(expected) &&
               message->Ack().ok();
      });
    });
  }
  Child Sender(Queue& queue, char c) {
    return Child::Fork([&queue, c] {
      return Woken(kPatience, [&] {
        return queue.Send(GetParam().Text(c), kPatience).ok();
      });
    });
  }
  std::string Text(char c) const { return GetParam().Text(c); }
};

INSTANTIATE_TEST_SUITE_P(
    Places, QueueWakeTest,
    ::testing::Values(Place{"Inline", 64, Delivery::kAutoAck},
                      Place{"Arena", 1000, Delivery::kAutoAck},
                      Place{"ExplicitAck", 1000, Delivery::kExplicitAck}),
    [](const auto& info) { return info.param.name; });

TEST_P(QueueWakeTest, ReceiverByASend) {
  Queue queue = Create(GetParam().WithRoomFor(4));
  for (int round = 0; round < 20; ++round) {
    Child receiver = Receiver(queue, 'm');
    receiver.AwaitSleep();
    ASSERT_TRUE(queue.Send(Text('m'), kPatience).ok());
    EXPECT_EQ(receiver.Wait(), 0);
  }
}

// A wake-up goes to one, who passes it on as long as there is more.
TEST_P(QueueWakeTest, EveryReceiverByItsMessage) {
  constexpr int kReceivers = 5;
  Queue queue = Create(GetParam().WithRoomFor(8));
  for (int round = 0; round < 10; ++round) {
    std::vector<Child> receivers;
    for (int i = 0; i < kReceivers; ++i) {
      receivers.push_back(Receiver(queue, 'm'));
      receivers.back().AwaitSleep();
    }
    for (int i = 0; i < kReceivers; ++i) {
      ASSERT_TRUE(queue.Send(Text('m'), kPatience).ok());
    }
    for (Child& receiver : receivers) EXPECT_EQ(receiver.Wait(), 0);
  }
}

TEST_P(QueueWakeTest, EverySenderByItsRoom) {
  constexpr int kSenders = 5;
  Queue queue = Create(GetParam().WithRoomFor(1));
  for (int round = 0; round < 10; ++round) {
    ASSERT_TRUE(queue.Send(Text('m'), kPatience).ok());
    std::vector<Child> senders;
    for (int i = 0; i < kSenders; ++i) {
      senders.push_back(Sender(queue, 'm'));
      senders.back().AwaitSleep();
    }
    for (int i = 0; i <= kSenders; ++i) {
      absl::StatusOr<Message> message = queue.ReceiveMessage(kPatience);
      ASSERT_TRUE(message.ok()) << message.status();
      ASSERT_TRUE(message->Ack().ok());
    }
    for (Child& sender : senders) EXPECT_EQ(sender.Wait(), 0);
  }
}

// All the room is made while one of them wakes up: it wakes the next one.
TEST_P(QueueWakeTest, SendersWakeEachOther) {
  constexpr int kSenders = 4;
  Queue queue = Create(GetParam().WithRoomFor(kSenders));
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < kSenders; ++i) {
      ASSERT_TRUE(queue.Send(Text('m'), kPatience).ok());
    }
    std::vector<Child> senders;
    for (int i = 0; i < kSenders; ++i) {
      senders.push_back(Sender(queue, 'm'));
      senders.back().AwaitSleep();
    }
    absl::StatusOr<std::vector<Message>> batch = queue.ReceiveBatch(kSenders);
    ASSERT_TRUE(batch.ok()) << batch.status();
    ASSERT_EQ(batch->size(), size_t{kSenders});
    for (Message& message : *batch) ASSERT_TRUE(message.Ack().ok());
    // Nobody receives any more.
    for (Child& sender : senders) ASSERT_EQ(sender.Wait(), 0);
    for (int i = 0; i < kSenders; ++i) {
      absl::StatusOr<Message> message = queue.ReceiveMessage(kPatience);
      ASSERT_TRUE(message.ok()) << message.status();
      ASSERT_TRUE(message->Ack().ok());
    }
  }
}

// Those of all kinds of calls that make room.
TEST_P(QueueWakeTest, SenderByWhatMakesRoom) {
  Queue queue = Create(GetParam().WithRoomFor(1));
  const auto is_done = [&] {
    return GetParam().delivery == Delivery::kAutoAck || queue.TaskDone().ok();
  };
  const std::vector<std::function<bool()>> ways = {
      [&] { return queue.Receive().ok() && is_done(); },
      [&] {
        std::byte buffer[1000];
        return queue.ReceiveInto(absl::MakeSpan(buffer)).ok() && is_done();
      },
      [&] {
        absl::StatusOr<Message> message = queue.ReceiveMessage();
        return message.ok() && message->Ack().ok();
      },
      [&] {
        absl::StatusOr<std::vector<Message>> batch = queue.ReceiveBatch(1);
        return batch.ok() && (*batch)[0].Ack().ok();
      },
  };
  for (const std::function<bool()>& make_room : ways) {
    ASSERT_TRUE(queue.Send(Text('1'), kPatience).ok());
    Child sender = Sender(queue, '2');
    sender.AwaitSleep();
    EXPECT_TRUE(make_room());
    EXPECT_EQ(sender.Wait(), 0);
    absl::StatusOr<Message> message = queue.ReceiveMessage(kPatience);
    ASSERT_TRUE(message.ok());
    EXPECT_EQ(message->text(), Text('2'));
    EXPECT_TRUE(message->Ack().ok());
  }
}

TEST_P(QueueWakeTest, ReceiverOfAMessagePutBack) {
  Queue queue = Create(GetParam().WithRoomFor(2));
  ASSERT_TRUE(queue.Send(Text('m'), kPatience).ok());
  // Sleeps, as the only message is being received.
  Child holder = Child::Fork([&](Child::Side side) {
    SlotRing::Claim claim;
    if (QueueTestPeer::BeginReceive(queue, &claim) != SlotRing::Outcome::kOk) {
      return 1;
    }
    if (!side.Tell() || !side.Hear()) return 2;
    // As a ReceiveInto that finds the message too long; it has to ring itself.
    if (!QueueTestPeer::ring(queue).PutBack(claim)) return 3;
    std::byte byte;
    return absl::IsInvalidArgument(
               queue.ReceiveInto(absl::MakeSpan(&byte, 1), kPatience).status())
               ? 0
               : 4;
  });
  ASSERT_TRUE(holder.Hear());
  Child receiver = Receiver(queue, 'm');
  receiver.AwaitSleep();
  ASSERT_TRUE(holder.Tell());
  EXPECT_EQ(holder.Wait(), 0);
  EXPECT_EQ(receiver.Wait(), 0);
}

TEST_P(QueueWakeTest, JoinByTheLast) {
  Queue queue = Create(GetParam().WithRoomFor(4));
  for (int round = 0; round < 10; ++round) {
    ASSERT_TRUE(queue.Send(Text('1'), kPatience).ok());
    ASSERT_TRUE(queue.Send(Text('2'), kPatience).ok());
    std::vector<Child> joiners;
    for (int i = 0; i < 3; ++i) {
      joiners.push_back(Child::Fork([&] {
        return Woken(kPatience, [&] { return queue.Join(kPatience).ok(); });
      }));
      joiners.back().AwaitSleep();
    }
    for (int i = 0; i < 2; ++i) {
      absl::StatusOr<Message> message = queue.ReceiveMessage(kPatience);
      ASSERT_TRUE(message.ok());
      EXPECT_TRUE(message->Ack().ok());
    }
    for (Child& joiner : joiners) EXPECT_EQ(joiner.Wait(), 0);
  }
}

// One who sleeps is killed, which nobody notices: the next wake-up goes to one
// who lives.
TEST_P(QueueWakeTest, PastASleeperKilled) {
  Queue queue = Create(GetParam().WithRoomFor(2));
  for (int round = 0; round < 10; ++round) {
    Child victim = Receiver(queue, 'm');
    victim.AwaitSleep();
    Child receiver = Receiver(queue, 'm');
    receiver.AwaitSleep();
    victim.Kill();
    ASSERT_TRUE(queue.Send(Text('m'), kPatience).ok());
    EXPECT_EQ(receiver.Wait(), 0);
  }
}

// A loan that is given back unsent makes room as well, and so does a message.
TEST(QueueWakeOfArenaTest, SenderByWhatIsDropped) {
  Queue queue = Create({.slots = 4,
                        .message_bytes = 1000,
                        .arena_bytes = 1024,
                        .block_bytes = 1024});
  const std::string text(1000, 'm');
  const auto sender = [&] {
    return Child::Fork([&] {
      return Woken(kPatience, [&] { return queue.Send(text, kPatience).ok(); });
    });
  };
  std::optional<Loan> loan = *queue.TryLoan(1000);
  Child first = sender();
  first.AwaitSleep();
  loan.reset();
  EXPECT_EQ(first.Wait(), 0);
  std::optional<Message> message = *queue.ReceiveMessage(kPatience);
  Child second = sender();
  second.AwaitSleep();
  message.reset();
  EXPECT_EQ(second.Wait(), 0);
  EXPECT_EQ(*queue.Receive(kPatience), text);
}

TEST(QueueWakeOfAckTest, ReceiverByGiveBack) {
  Queue queue = Create({.slots = 4, .delivery = Delivery::kExplicitAck});
  ASSERT_TRUE(queue.Send("message").ok());
  for (const bool dropped : {false, true}) {
    Message message = *queue.ReceiveMessage();
    Child receiver = Child::Fork([&] {
      return Woken(kPatience, [&] {
        absl::StatusOr<Message> again = queue.ReceiveMessage(kPatience);
        return again.ok() && again->redelivered();
      });
    });
    receiver.AwaitSleep();
    if (dropped) {
      Message gone = std::move(message);
    } else {
      EXPECT_TRUE(message.GiveBack().ok());
    }
    EXPECT_EQ(receiver.Wait(), 0);
  }
}

// What is found dead by anybody is told to all who may wait for it.
TEST(QueueWakeOfAckTest, AllByAReaper) {
  Queue queue = Create({.slots = 1,
                        .delivery = Delivery::kExplicitAck,
                        .arena_bytes = 1024,
                        .block_bytes = 1024});
  ASSERT_TRUE(queue.Send("message").ok());
  Child dead = Child::Fork([&] {
    absl::StatusOr<Message> message = queue.ReceiveMessage();
    Child::StopSelf();
    return 1;
  });
  dead.AwaitStop();
  Child receiver = Child::Fork([&] {
    return Woken(kPatience, [&] {
      absl::StatusOr<Message> message = queue.ReceiveMessage(kPatience);
      return message.ok() && message->Ack().ok();
    });
  });
  Child sender = Child::Fork([&] {
    return Woken(kPatience, [&] { return queue.Send("next", kPatience).ok(); });
  });
  Child joiner = Child::Fork([&] {
    return Woken(kPatience, [&] { return queue.Join(kPatience).ok(); });
  });
  for (const Child* waiter : {&receiver, &sender, &joiner}) {
    waiter->AwaitSleep();
  }
  dead.Kill();
  QueueTestPeer::attachment(queue).ReapAll();
  EXPECT_EQ(receiver.Wait(), 0);
  EXPECT_EQ(sender.Wait(), 0);
  absl::StatusOr<Message> next = queue.ReceiveMessage(kPatience);
  ASSERT_TRUE(next.ok());
  EXPECT_EQ(next->text(), "next");
  EXPECT_TRUE(next->Ack().ok());
  EXPECT_EQ(joiner.Wait(), 0);
}

}  // namespace
}  // namespace ipc::mqueue
