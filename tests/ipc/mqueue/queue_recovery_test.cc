// The dead are found also where nobody ever waits for long, and whoever waits
// for the end is told of it by what brings it about, not by a tick.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/queue_core.h"
#include "ipc/mqueue/slot_ring.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

// Long enough never to pass unless something hangs.
constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr absl::Duration kNoTick = absl::Hours(1);
// Longer than any single wait of a process that others keep busy.
constexpr absl::Duration kLongTick = absl::Seconds(1);

UniqueFd Duplicate(const Queue& queue) {
  return UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0));
}

// Takes a message and gives it back, but for the announcement.
int GiveBackInSilence(Queue& queue) {
  SlotRing::Claim claim;
  if (QueueTestPeer::BeginReceive(queue, &claim) != SlotRing::Outcome::kOk) {
    return 1;
  }
  SlotRing& ring = QueueTestPeer::ring(queue);
  Arena& arena = QueueTestPeer::arena(queue);
  const Participant self = *QueueTestPeer::attachment(queue).Self();
  const SlotRing::Message message = ring.Contents(claim);
  if (!arena.Hold(self, message.block) || !ring.CommitReceive(claim) ||
      !arena.GiveBack(self, message.block)) {
    return 2;
  }
  Child::StopSelf();
  return 0;
}

// Whoever gives a message back is stopped, or killed, before he could say so.
TEST(QueueRecoveryTest, EndIsNotToldWhileAMessageHasComeBackInSilence) {
  for (const bool is_killed : {false, true}) {
    Queue queue = *Queue::CreateAnonymous({.delivery = Delivery::kExplicitAck});
    QueueTestPeer::SetParkTick(queue, kNoTick);
    ASSERT_TRUE(queue.Send("task").ok());
    Child child = Child::Fork([&] { return GiveBackInSilence(queue); });
    child.AwaitStop();
    if (is_killed) child.Kill();
    ASSERT_TRUE(queue.CloseForSend().ok());
    EXPECT_EQ(*queue.Receive(kPatience), "task");
    EXPECT_TRUE(queue.TaskDone().ok());
    EXPECT_EQ(queue.Receive(kPatience).status().code(),
              absl::StatusCode::kOutOfRange);
  }
}

// A consumer is killed with a message. Another one finds a message each time
// that it looks, so it never waits.
TEST(QueueRecoveryTest, BusyReceiversFindTheDead) {
  for (const bool is_explicit : {false, true}) {
    Queue queue = *Queue::CreateAnonymous(
        {.slots = 1024,
         .delivery =
             is_explicit ? Delivery::kExplicitAck : Delivery::kAutoAck});
    ASSERT_TRUE(queue.Send("victim").ok());
    Child child = Child::Fork([&] {
      SlotRing::Claim claim;
      if (is_explicit ? !queue.Receive().ok()
                      : QueueTestPeer::BeginReceive(queue, &claim) !=
                            SlotRing::Outcome::kOk) {
        return 1;
      }
      Child::StopSelf();
      return 2;
    });
    child.AwaitStop();
    child.Kill();
    QueueTestPeer::SetParkTick(queue, absl::ZeroDuration());
    // Far less than a lap, which would bring it back in any case.
    int count = 0;
    for (std::string text; text != "victim"; ++count) {
      ASSERT_LE(count, is_explicit ? 5 : 65);
      ASSERT_TRUE(queue.TrySend("job").ok());
      std::byte buffer[16];
      const absl::StatusOr<size_t> size =
          queue.ReceiveInto(absl::MakeSpan(buffer));
      ASSERT_TRUE(size.ok()) << size.status();
      text.assign(reinterpret_cast<const char*>(buffer), *size);
      if (is_explicit) {
        ASSERT_TRUE(queue.TaskDone().ok());
      }
    }
    EXPECT_EQ(queue.stats().reaped, 1u);
  }
}

// The same for one that waits each time, but never for as long as a tick.
TEST(QueueRecoveryTest, ShortWaitsFindTheDead) {
  Queue queue = *Queue::CreateAnonymous({.delivery = Delivery::kExplicitAck});
  Queue back = *Queue::CreateAnonymous();
  QueueTestPeer::SetParkTick(queue, kLongTick);
  ASSERT_TRUE(queue.Send("victim").ok());
  Child victim = Child::Fork([&] {
    if (!queue.Receive().ok()) return 1;
    Child::StopSelf();
    return 2;
  });
  victim.AwaitStop();
  victim.Kill();
  Child producer = Child::Fork([&] {
    while (queue.Send("job").ok() && back.Receive(kPatience).ok()) continue;
    return 0;
  });
  const absl::Time give_up = absl::Now() + kPatience;
  for (std::string text; text != "victim";) {
    ASSERT_LT(absl::Now(), give_up);
    absl::StatusOr<std::string> message = queue.Receive(kPatience);
    ASSERT_TRUE(message.ok()) << message.status();
    ASSERT_TRUE(queue.TaskDone().ok());
    text = *message;
    if (text == "job") {
      ASSERT_TRUE(back.Send("more").ok());
    }
  }
}

// Those who wait for something else than messages, while others ring all the
// time: for memory that a dead one has on loan, and for the end of all.
TEST(QueueRecoveryTest, WaitersThatAreRungAllTheTimeFindTheDead) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4,
                                         .message_bytes = 8192,
                                         .arena_bytes = 8192,
                                         .block_bytes = 4096});
  QueueTestPeer::SetParkTick(queue, kLongTick);
  Child borrower = Child::Fork([&] {
    absl::StatusOr<Loan> loan = queue.TryLoan(4096);
    Child::StopSelf();
    return loan.ok() ? 0 : 1;
  });
  borrower.AwaitStop();
  borrower.Kill();
  // Each of its receives rings the senders, and does not look for the dead.
  Child traffic = Child::Fork([&](Child::Side side) {
    QueueTestPeer::SetParkTick(queue, kNoTick);
    side.Tell();
    while (queue.Send("small").ok() && queue.Receive().ok()) continue;
    return 0;
  });
  ASSERT_TRUE(traffic.Hear());
  EXPECT_TRUE(queue.Send(std::string(8192, 'x'), kPatience).ok());
}

TEST(QueueRecoveryTest, JoinEndsUnderSteadyTraffic) {
  Queue queue =
      *Queue::CreateAnonymous({.slots = 8, .delivery = Delivery::kExplicitAck});
  QueueTestPeer::SetParkTick(queue, kLongTick);
  ASSERT_TRUE(queue.Send("victim").ok());
  Child victim = Child::Fork([&] {
    if (!queue.Receive().ok()) return 1;
    Child::StopSelf();
    return 2;
  });
  victim.AwaitStop();
  victim.Kill();
  Child producer = Child::Fork([&] {
    QueueTestPeer::SetParkTick(queue, kNoTick);
    while (queue.Send("job").ok()) continue;
    return 0;
  });
  Child consumer = Child::Fork([&](Child::Side side) {
    QueueTestPeer::SetParkTick(queue, kNoTick);
    side.Tell();
    while (queue.Receive().ok() && queue.TaskDone().ok()) continue;
    return 0;
  });
  ASSERT_TRUE(consumer.Hear());
  EXPECT_TRUE(queue.Join(kPatience).ok());
}

// Waits for the end without a tick, as soon as it sleeps.
Child AwaitEnd(Queue& queue) {
  QueueTestPeer::SetParkTick(queue, kNoTick);
  Child child = Child::Fork([&] {
    // Not by a time-out, at which a receiver looks once more.
    alarm(static_cast<unsigned>(absl::ToInt64Seconds(kPatience)));
    return absl::IsOutOfRange(queue.Receive().status()) ? 0 : 1;
  });
  child.AwaitSleep();
  return child;
}

TEST(QueueRecoveryTest, LastAckTellsTheEnd) {
  Queue queue = *Queue::CreateAnonymous({.delivery = Delivery::kExplicitAck});
  ASSERT_TRUE(queue.Send("1").ok());
  ASSERT_TRUE(queue.Send("2").ok());
  ASSERT_TRUE(queue.CloseForSend().ok());
  Message message = *queue.ReceiveMessage();
  ASSERT_TRUE(queue.Receive().ok());
  Child a = AwaitEnd(queue);
  Child b = AwaitEnd(queue);
  EXPECT_TRUE(message.Ack().ok());
  a.AwaitSleep();
  EXPECT_TRUE(queue.TaskDone().ok());
  EXPECT_EQ(a.Wait(), 0);
  EXPECT_EQ(b.Wait(), 0);
}

TEST(QueueRecoveryTest, LastReceiveTellsTheEnd) {
  Queue queue = *Queue::CreateAnonymous();
  ASSERT_TRUE(queue.Send("message").ok());
  ASSERT_TRUE(queue.CloseForSend().ok());
  QueueCore& core = QueueTestPeer::core(queue);
  QueueCore::Taken taken;
  ASSERT_TRUE(core.Take(kPatience, true, &taken).ok());
  Child child = AwaitEnd(queue);
  EXPECT_EQ(*core.FinishAsString(taken), "message");
  EXPECT_EQ(child.Wait(), 0);
}

TEST(QueueRecoveryTest, LastAckIsToldToPollers) {
  Queue queue = *Queue::CreateAnonymous({.delivery = Delivery::kExplicitAck});
  Queue poller = *Queue::FromFd(Duplicate(queue));
  QueueTestPeer::SetParkTick(poller, kNoTick);
  ASSERT_TRUE(queue.Send("message").ok());
  ASSERT_TRUE(queue.CloseForSend().ok());
  Message message = *queue.ReceiveMessage();
  ASSERT_TRUE(poller.EnablePolling().ok());
  EXPECT_EQ(*poller.TryReceive(), std::nullopt);
  EXPECT_TRUE(message.Ack().ok());
  pollfd p = {poller.poll_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, static_cast<int>(absl::ToInt64Milliseconds(kPatience))),
            1);
  EXPECT_EQ(poller.TryReceive().status().code(), absl::StatusCode::kOutOfRange);
}

// A thread waits while another one finds out that the process has lost its
// place: what it then receives belongs to who the process is now.
TEST(QueueRecoveryTest, WaiterReceivesAsWhoItHasBecome) {
  Queue queue = *Queue::CreateAnonymous({.delivery = Delivery::kExplicitAck});
  Queue sender = *Queue::FromFd(Duplicate(queue));
  QueueTestPeer::SetParkTick(queue, kNoTick);
  Attachment& attachment = QueueTestPeer::attachment(queue);
  const Participant before = *attachment.Self();
  std::vector<Message> received;
  std::thread waiter([&] {
    absl::StatusOr<Message> message = queue.ReceiveMessage(kPatience);
    if (message.ok()) received.push_back(*std::move(message));
  });
  // Once it has announced itself it has looked who it is.
  while (!QueueTestPeer::header(queue).receivers.bell.IsAnnounced()) {
    std::this_thread::yield();
  }
  const Geometry& geometry = QueueTestPeer::geometry(queue);
  auto* words = reinterpret_cast<ParticipantTable::Word*>(
      QueueTestPeer::bytes(queue).data() + geometry.participants_offset);
  words[before.index].fetch_add(uint64_t{1} << 32);  // another epoch
  ASSERT_TRUE(attachment.RenewIfLost().ok());
  const Participant now = *attachment.Self();
  ASSERT_NE(now, before);
  ASSERT_TRUE(sender.Send("message").ok());
  waiter.join();
  ASSERT_EQ(received.size(), 1u);
  EXPECT_TRUE(QueueTestPeer::arena(queue).Load(0).IsOwnedBy(now));
  EXPECT_TRUE(received[0].Ack().ok());
}

}  // namespace
}  // namespace ipc::mqueue
