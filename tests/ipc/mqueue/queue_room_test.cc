// What senders and lenders do where there is no room.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/slot_ring.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

constexpr absl::Duration kShort = absl::Milliseconds(5);

// A search takes time in proportion to the arena, not to its product with the
// message: that would be longer than a small test may take.
TEST(QueueRoomTest, SearchInVainIsLinear) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4,
                                         .message_bytes = 9 << 20,
                                         .arena_bytes = 16 << 20,
                                         .block_bytes = 64});
  std::optional<Loan> large = *queue.TryLoan(8 << 20);
  Loan in_the_middle = *queue.TryLoan(300);
  large.reset();
  EXPECT_EQ(queue.TryLoan(9 << 20).status().code(),
            absl::StatusCode::kResourceExhausted);
  // What is left is found.
  EXPECT_TRUE(queue.TryLoan(7 << 20).ok());
}

// The same of a backlog that fills the arena: to look for each block from the
// first one on would take minutes.
TEST(QueueRoomTest, BacklogIsSentInLinearTime) {
  constexpr uint64_t kBlocks = 1 << 18;
  Queue queue = *Queue::CreateAnonymous({.slots = kBlocks,
                                         .message_bytes = 64,
                                         .delivery = Delivery::kExplicitAck,
                                         .arena_bytes = kBlocks * 64,
                                         .block_bytes = 64});
  for (uint64_t i = 0; i < kBlocks; ++i) {
    ASSERT_TRUE(queue.Send("m", absl::ZeroDuration()).ok()) << i;
  }
  EXPECT_EQ(queue.ApproximateSize(), kBlocks);
  EXPECT_TRUE(absl::IsResourceExhausted(queue.TrySend("more")));
}

// Gaps that begin anywhere are found, and used to the last block.
TEST(QueueRoomTest, GapsAreFound) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4,
                                         .message_bytes = 4096,
                                         .arena_bytes = 4096,
                                         .block_bytes = 256});
  std::map<std::byte*, std::optional<Loan>> blocks;
  for (int i = 0; i < 16; ++i) {
    Loan loan = *queue.TryLoan(256);
    std::byte* const data = loan.data().data();
    blocks[data] = std::move(loan);
  }
  std::byte* const first = blocks.begin()->first;
  for (int begin = 0; begin < 16; ++begin) {
    for (int length = 1; begin + length <= 16; ++length) {
      for (int i = begin; i < begin + length; ++i) {
        blocks[first + i * 256].reset();
      }
      EXPECT_FALSE(queue.TryLoan((length + 1) * 256).ok());
      EXPECT_TRUE(queue.TryLoan(length * 256).ok()) << begin << ", " << length;
      for (int i = begin; i < begin + length; ++i) {
        Loan loan = *queue.TryLoan(256);
        std::byte* const data = loan.data().data();
        blocks[data] = std::move(loan);
      }
    }
  }
}

Queue CreateOverwriting(uint64_t priorities = 1,
                        Delivery delivery = Delivery::kAutoAck) {
  return *Queue::CreateAnonymous({.slots = 256,
                                  .message_bytes = 4096,
                                  .priorities = priorities,
                                  .full_policy = FullPolicy::kOverwriteOldest,
                                  .delivery = delivery,
                                  .arena_bytes = 8192,
                                  .block_bytes = 4096});
}

const std::string& Large() {
  static const auto* large = new std::string(4000, 'x');
  return *large;
}

// What is dropped would not free the memory that receivers have.
TEST(QueueRoomTest, NothingIsOverwrittenInVain) {
  Queue queue = CreateOverwriting();
  ASSERT_TRUE(queue.Send(Large()).ok());
  ASSERT_TRUE(queue.Send(Large()).ok());
  Message a = *queue.ReceiveMessage(), b = *queue.ReceiveMessage();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(queue.Send("small").ok());
  EXPECT_TRUE(queue.Send(Large()).ok());
  EXPECT_EQ(queue.stats().pending, 100u);
  EXPECT_EQ(queue.stats().dropped, 1u);
  // Of two blocks one is a message's in the queue: for it all before it goes.
  EXPECT_TRUE(b.Ack().ok());
  EXPECT_TRUE(queue.Send(Large()).ok());
  EXPECT_EQ(queue.stats().dropped, 1u);
  ASSERT_TRUE(queue.Send("small").ok());
  EXPECT_TRUE(queue.Send(Large()).ok());
  EXPECT_EQ(queue.stats().dropped, 102u);
  EXPECT_EQ(queue.stats().pending, 2u);
}

// Nor what has a higher priority, which is not dropped at all.
TEST(QueueRoomTest, MemoryOfHigherPrioritiesIsNotToBeHad) {
  Queue queue = CreateOverwriting(/*priorities=*/2);
  ASSERT_TRUE(queue.Send(Large(), {.priority = 1}).ok());
  ASSERT_TRUE(queue.Send(Large(), {.priority = 1}).ok());
  ASSERT_TRUE(queue.Send("small").ok());
  EXPECT_TRUE(queue.Send(Large()).ok());
  EXPECT_EQ(queue.stats().pending, 3u);
  EXPECT_EQ(queue.stats().dropped, 1u);
  EXPECT_TRUE(queue.Send(Large(), {.priority = 1}).ok());
  EXPECT_EQ(queue.stats().pending, 3u);
  EXPECT_EQ(queue.stats().dropped, 2u);
}

// What was given back is in no slot, and as old as any.
TEST(QueueRoomTest, WhatWasGivenBackIsOverwritten) {
  Queue queue = CreateOverwriting(1, Delivery::kExplicitAck);
  ASSERT_TRUE(queue.Send(Large()).ok());
  ASSERT_TRUE(queue.Send(Large()).ok());
  Message a = *queue.ReceiveMessage(), b = *queue.ReceiveMessage();
  ASSERT_TRUE(a.GiveBack().ok());
  ASSERT_TRUE(b.GiveBack().ok());
  EXPECT_TRUE(queue.Send("new").ok());
  EXPECT_EQ(queue.stats().dropped, 1u);
  EXPECT_EQ(queue.stats().pending, 2u);
  EXPECT_EQ(queue.stats().sent, 3u);
  EXPECT_EQ(queue.stats().received, 0u);
  EXPECT_TRUE(queue.ReceiveMessage()->Ack().ok());
  EXPECT_EQ(*queue.Receive(), "new");
}

// Each receive that is slow is waited for once, though two of one receiver may
// look alike.
TEST(QueueRoomTest, EachSlowReaderIsWaitedFor) {
  Queue queue = *Queue::CreateAnonymous(
      {.slots = 2, .full_policy = FullPolicy::kOverwriteOldest});
  ASSERT_TRUE(queue.Send("1").ok());
  ASSERT_TRUE(queue.Send("2").ok());
  Child reader = Child::Fork([&](Child::Side side) {
    SlotRing::Claim a, b;
    QueueTestPeer::BeginReceive(queue, &a);
    QueueTestPeer::BeginReceive(queue, &b);
    if (a.word.bits() != b.word.bits()) return 1;
    side.Tell();
    side.Hear();
    if (!QueueTestPeer::ring(queue).CommitReceive(a)) return 2;
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(reader.Hear());
  const auto time_of_send = [&queue] {
    const absl::Time start = absl::Now();
    EXPECT_TRUE(queue.Send("x").ok());
    return absl::Now() - start;
  };
  EXPECT_GE(time_of_send(), absl::Milliseconds(2));
  EXPECT_EQ(queue.stats().dropped, 1u);
  reader.Tell();
  ASSERT_TRUE(reader.Hear());
  EXPECT_TRUE(queue.Send("3").ok());
  EXPECT_EQ(queue.stats().dropped, 1u);
  EXPECT_GE(time_of_send(), absl::Milliseconds(2));
  EXPECT_EQ(queue.stats().dropped, 2u);
  reader.Tell();
  EXPECT_EQ(reader.Wait(), 0);
}

// Of one block.
Queue CreateSmall(FullPolicy policy) {
  return *Queue::CreateAnonymous({.message_bytes = 4096,
                                  .full_policy = policy,
                                  .arena_bytes = 4096,
                                  .block_bytes = 4096});
}

TEST(QueueRoomTest, LendAsThePolicySays) {
  for (const FullPolicy policy : {FullPolicy::kFail, FullPolicy::kDropNewest}) {
    Queue queue = CreateSmall(policy);
    ASSERT_TRUE(queue.Send(Large()).ok());
    EXPECT_EQ(queue.Lend(4096).status().code(),
              absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(queue.TryLoan(4096).status().code(),
              absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(queue.stats().dropped, 0u) << "there is no message yet";
    EXPECT_EQ(queue.stats().pending, 1u);
  }
  Queue queue = CreateSmall(FullPolicy::kOverwriteOldest);
  ASSERT_TRUE(queue.Send(Large()).ok());
  {
    absl::StatusOr<Loan> loan = queue.TryLoan(4096);
    ASSERT_TRUE(loan.ok()) << loan.status();
    EXPECT_EQ(queue.stats().dropped, 1u);
    EXPECT_EQ(queue.Lend(4096).status().code(),
              absl::StatusCode::kResourceExhausted);
    ASSERT_TRUE(queue.Send(*std::move(loan)).ok());
  }
  EXPECT_TRUE(queue.Lend(4096).ok());
  EXPECT_EQ(queue.stats().dropped, 2u);
}

TEST(QueueRoomTest, LendCountsAsBlocked) {
  Queue queue = CreateSmall(FullPolicy::kBlock);
  Loan loan = *queue.TryLoan(4096);
  EXPECT_EQ(queue.stats().blocked, absl::ZeroDuration());
  EXPECT_EQ(queue.Lend(4096, kShort).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(queue.stats().blocked, kShort);
  const absl::Duration before = queue.stats().blocked;
  EXPECT_EQ(queue.Send(Large(), kShort).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(queue.stats().blocked, before + kShort);
}

// Statistics take no slot from those who use it, but for the one at the tail.
TEST(QueueRoomTest, StatsLeaveTheSlotsAlone) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4096});
  for (int i = 0; i < 3000; ++i) ASSERT_TRUE(queue.Send("x").ok());
  for (int i = 0; i < 2000; ++i) ASSERT_TRUE(queue.Receive().ok());
  const Geometry& geometry = QueueTestPeer::geometry(queue);
  const uint64_t page = static_cast<uint64_t>(getpagesize());
  const uint64_t begin = (geometry.slots_offset + page - 1) / page * page;
  const uint64_t end = geometry.blocks_offset / page * page;
  std::byte* const base = QueueTestPeer::bytes(queue).data();
  const uint64_t tail = geometry.slots_offset + 3000 * geometry.slot_stride;
  ASSERT_EQ(mprotect(base + begin, end - begin, PROT_NONE), 0);
  ASSERT_EQ(mprotect(base + tail / page * page, page, PROT_READ), 0);
  const Stats stats = queue.stats();
  EXPECT_EQ(stats.sent, 3000u);
  EXPECT_EQ(stats.received, 2000u);
  EXPECT_EQ(stats.pending, 1000u);
  ASSERT_EQ(mprotect(base + begin, end - begin, PROT_READ | PROT_WRITE), 0);
}

// They are exact also after deaths, with and without the slots.
TEST(QueueRoomTest, StatsAreExactAfterDeaths) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4});
  QueueTestPeer::SetParkTick(queue, absl::ZeroDuration());
  for (int round = 0; round < 10; ++round) {
    ASSERT_TRUE(queue.Send("1").ok());
    Child reader = Child::Fork([&] {
      SlotRing::Claim claim;
      QueueTestPeer::BeginReceive(queue, &claim);
      return 0;  // without leaving the table
    });
    EXPECT_EQ(reader.Wait(), 0);
    Child writer = Child::Fork([&] {
      SlotRing::Claim claim;
      QueueTestPeer::BeginSend(queue, &claim);
      return 0;
    });
    EXPECT_EQ(writer.Wait(), 0);
    EXPECT_EQ(QueueTestPeer::attachment(queue).ReapAll(), 2);
    const uint64_t done = static_cast<uint64_t>(round);
    EXPECT_EQ(queue.stats().sent, done + 1);
    EXPECT_EQ(queue.stats().received, done);
    EXPECT_EQ(queue.stats().pending, 1u);
    EXPECT_EQ(*queue.TryReceive(), "1");
    EXPECT_EQ(*queue.TryReceive(), std::nullopt);
    EXPECT_EQ(queue.stats().sent, done + 1);
    EXPECT_EQ(queue.stats().received, done + 1);
    EXPECT_EQ(queue.stats().pending, 0u);
  }
}

}  // namespace
}  // namespace ipc::mqueue
