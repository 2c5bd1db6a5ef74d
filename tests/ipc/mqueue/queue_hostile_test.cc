// A peer that writes rubbish into the segment. Whatever it writes, calls return
// in time, with a Status; under AddressSanitizer, none leaves the segment.
#include <fcntl.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/slot_ring.h"
#include "ipc/mqueue/slot_word.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

using ::testing::AnyOf;

SlotHeader& SlotAt(Queue& queue, uint32_t i) {
  const Geometry& geometry = QueueTestPeer::geometry(queue);
  return *reinterpret_cast<SlotHeader*>(QueueTestPeer::bytes(queue).data() +
                                        geometry.slots_offset +
                                        size_t{i} * geometry.slot_stride);
}

Header& HeaderOf(Queue& queue) { return QueueTestPeer::header(queue); }

Lane& LaneOf(Queue& queue) {
  return *reinterpret_cast<Lane*>(QueueTestPeer::bytes(queue).data() +
                                  sizeof(Header));
}

TEST(QueueHostileTest, LengthBeyondTheSlotIsDataLoss) {
  Queue queue = *Queue::CreateAnonymous({.slots = 2});
  for (const uint32_t length : {241u, 1u << 31, ~0u}) {
    ASSERT_TRUE(queue.Send("x").ok());
    for (uint32_t i = 0; i < 2; ++i) SlotAt(queue, i).length = length;
    EXPECT_EQ(queue.Receive().status().code(), absl::StatusCode::kDataLoss);
    ASSERT_TRUE(queue.Send("next").ok());
    EXPECT_EQ(*queue.Receive(), "next");
  }
}

TEST(QueueHostileTest, LengthBeyondTheLongestMessageIsDataLoss) {
  Queue queue = *Queue::CreateAnonymous({.slots = 2,
                                         .message_bytes = 300,
                                         .arena_bytes = 4096,
                                         .block_bytes = 64});
  const Geometry& geometry = QueueTestPeer::geometry(queue);
  const std::string message(300, 'm');
  // The first two would still be within the arena.
  for (const uint64_t length : {uint64_t{301}, uint64_t{2000}, ~uint64_t{0}}) {
    ASSERT_TRUE(queue.Send(message).ok());
    for (uint32_t i = 0; i < geometry.block_count; ++i) {
      reinterpret_cast<BlockHeader*>(QueueTestPeer::bytes(queue).data() +
                                     geometry.blocks_offset)[i]
          .length = length;
    }
    EXPECT_EQ(queue.Receive().status().code(), absl::StatusCode::kDataLoss);
    ASSERT_TRUE(queue.Send(message).ok());
    EXPECT_EQ(*queue.Receive(), message);
  }
}

TEST(QueueHostileTest, EveryWrongSlotWord) {
  for (uint32_t state = 0; state < 8; ++state) {
    for (const uint32_t lap : {0u, 1u, 2u, 7u, ~0u, 1u << 31}) {
      for (const Participant owner :
           {Participant{0, 0}, Participant{1, 0}, Participant{511, 77}}) {
        Queue queue = *Queue::CreateAnonymous({.slots = 2});
        ASSERT_TRUE(queue.Send("x").ok());
        ASSERT_TRUE(queue.Receive().ok());
        const uint64_t word = SlotWord::Of(SlotState::kFree, lap)
                                  .To(static_cast<SlotState>(state), owner)
                                  .bits();
        SlotAt(queue, 1).word.store(word);
        for (int i = 0; i < 3; ++i) {
          EXPECT_THAT(queue.Send("y", absl::Milliseconds(1)).code(),
                      AnyOf(absl::StatusCode::kOk, absl::StatusCode::kDataLoss,
                            absl::StatusCode::kFailedPrecondition,
                            absl::StatusCode::kDeadlineExceeded));
          EXPECT_THAT(queue.TryReceive().status().code(),
                      AnyOf(absl::StatusCode::kOk, absl::StatusCode::kDataLoss,
                            absl::StatusCode::kOutOfRange));
        }
        // A slot of somebody who never was does not block for ever.
        if (lap == 0 && state == static_cast<uint32_t>(SlotState::kWriting) &&
            owner.index != 0) {
          (void)queue.Receive(3 * Queue::kParkTick);
          EXPECT_FALSE(SlotWord(SlotAt(queue, 1).word.load()).IsOwned());
        }
      }
    }
  }
}

// Positions that no honest peer can have written end in DataLoss, not in
// waiting for what never comes.
TEST(QueueHostileTest, PositionsMovedApart) {
  for (const int64_t by : {2, 7, 1 << 20}) {
    Queue queue = *Queue::CreateAnonymous({.slots = 4});
    LaneOf(queue).head.fetch_add(by);
    EXPECT_EQ(queue.Receive().status().code(), absl::StatusCode::kDataLoss);
  }
  for (const int64_t by : {1, 2, 3}) {
    Queue queue = *Queue::CreateAnonymous({.slots = 4});
    LaneOf(queue).tail.fetch_add(by);
    EXPECT_EQ(queue.Receive().status().code(), absl::StatusCode::kDataLoss);
  }
  {
    Queue queue = *Queue::CreateAnonymous({.slots = 4});
    LaneOf(queue).tail.fetch_add(1000);
    EXPECT_EQ(queue.Send("x").code(), absl::StatusCode::kDataLoss);
  }
  {
    // The head went past four messages that nobody has taken.
    Queue queue = *Queue::CreateAnonymous({.slots = 4});
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(queue.Send("x").ok());
    LaneOf(queue).head.fetch_add(2);
    EXPECT_EQ(queue.Send("x").code(), absl::StatusCode::kDataLoss);
  }
}

// A flag that is set again and again costs a scan each time, no more.
TEST(QueueHostileTest, RequeuedFlagWithoutReason) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4});
  for (int i = 0; i < 1000; ++i) {
    HeaderOf(queue).shared.requeued[0].store(~uint64_t{0} - i % 2);
    ASSERT_TRUE(queue.TrySend("x").ok());
    EXPECT_EQ(*queue.TryReceive(), "x");
  }
}

// A peer declares us dead while we are writing: Aborted, and the next call goes
// on under another name.
TEST(QueueHostileTest, FencedIsAbortedAndAttachesAnew) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4});
  SlotRing& ring = QueueTestPeer::ring(queue);
  SlotRing::Claim claim;
  ASSERT_EQ(QueueTestPeer::BeginSend(queue, &claim), SlotRing::Outcome::kOk);
  reinterpret_cast<std::atomic<uint64_t>*>(
      QueueTestPeer::bytes(queue).data() +
      QueueTestPeer::geometry(queue).participants_offset)
      ->store(uint64_t{1} << 32);  // FREE, epoch 1
  Queue other = *Queue::FromFd(UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0)));
  EXPECT_EQ(QueueTestPeer::attachment(other).Self()->index, 1u)
      << "our lock keeps the index ours";
  EXPECT_EQ(other.Receive(3 * Queue::kParkTick).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(ring.CommitSend(claim));
  EXPECT_TRUE(QueueTestPeer::attachment(queue).RenewIfLost().ok());
  EXPECT_EQ(*QueueTestPeer::attachment(queue).Self(), (Participant{0, 1}));
  EXPECT_TRUE(queue.Send("x").ok());
  EXPECT_EQ(*other.Receive(), "x");
}

// How long calls take that have a deadline. Each that looks at damaged words is
// bounded in its steps, not in time, and may lose its CPU meanwhile; so what is
// granted beyond the deadline is far more than any of them needs, and far less
// than what hangs takes.
class Stopwatch {
 public:
  static constexpr absl::Duration kSlack = absl::Seconds(10);

  // What `call` returns, which may take `timeout`.
  template <typename Call>
  auto operator()(const char* name, absl::Duration timeout, Call call) {
    const absl::Time start = absl::Now();
    auto result = call();
    const absl::Duration took = absl::Now() - start;
    if (took > timeout + kSlack) {
      fprintf(stderr, "%s of %s took %s\n", name,
              absl::FormatDuration(timeout).c_str(),
              absl::FormatDuration(took).c_str());
      is_late_ = true;
    }
    return result;
  }

  bool is_late() const { return is_late_; }

 private:
  bool is_late_ = false;
};

// All calls there are, on a queue of messages of up to `max_bytes` that others
// damage meanwhile: whatever they return, in time. Returns what is wrong.
int Exercise(Queue& queue, size_t max_bytes, uint32_t seed, absl::Time until) {
  std::mt19937 random(seed);
  Stopwatch timed;
  const std::string message(max_bytes, 'm');
  const auto some_time = [&] { return absl::Milliseconds(random() % 2); };
  while (absl::Now() < until) {
    const absl::Duration to_send = some_time(), to_receive = some_time();
    (void)timed("Send", to_send, [&] {
      return queue.Send(
          absl::string_view(message).substr(random() % (max_bytes + 1)),
          {.timeout = to_send,
           .priority = static_cast<uint32_t>(random() % 3)});
    });
    (void)timed("TrySend", absl::ZeroDuration(),
                [&] { return queue.TrySend(message); });
    absl::StatusOr<std::string> text =
        timed("Receive", to_receive, [&] { return queue.Receive(to_receive); });
    if (text.ok() && text->size() > max_bytes) return 1;
    absl::StatusOr<std::optional<std::string>> more = timed(
        "TryReceive", absl::ZeroDuration(), [&] { return queue.TryReceive(); });
    if (more.ok() && more->has_value() && (*more)->size() > max_bytes) return 1;
    std::byte buffer[64];
    absl::StatusOr<size_t> size = timed("ReceiveInto", to_receive, [&] {
      return queue.ReceiveInto(absl::MakeSpan(buffer), to_receive);
    });
    if (size.ok() && *size > sizeof(buffer)) return 1;
    {
      absl::StatusOr<Loan> loan = timed("Lend", to_send, [&] {
        return queue.Lend(random() % max_bytes, to_send);
      });
      if (loan.ok()) {
        if (loan->data().size() > max_bytes) return 1;
        std::memset(loan->data().data(), 'l', loan->data().size());
        (void)timed("Send of a loan", to_send, [&] {
          return queue.Send(*std::move(loan), {.timeout = to_send});
        });
      }
      absl::StatusOr<std::optional<Message>> in_place =
          timed("TryReceiveMessage", absl::ZeroDuration(),
                [&] { return queue.TryReceiveMessage(); });
      if (in_place.ok() && in_place->has_value()) {
        // Reads it all, wherever it is.
        (void)std::string((*in_place)->text());
        if (random() % 3 == 0) {
          (void)timed("Ack", absl::ZeroDuration(),
                      [&] { return (*in_place)->Ack(); });
        } else if (random() % 2 == 0) {
          (void)timed("GiveBack", absl::ZeroDuration(),
                      [&] { return (*in_place)->GiveBack(); });
        }
      }
      absl::StatusOr<std::vector<Message>> batch =
          timed("ReceiveBatch", to_receive,
                [&] { return queue.ReceiveBatch(3, to_receive); });
      if (batch.ok() && batch->size() > 3) return 1;
      (void)timed("TaskDone", absl::ZeroDuration(),
                  [&] { return queue.TaskDone(); });
      (void)timed("Join", to_receive, [&] { return queue.Join(to_receive); });
    }
    (void)timed("stats", absl::ZeroDuration(), [&] { return queue.stats(); });
    if (queue.ApproximateSize() > 3 * queue.capacity()) return 1;
  }
  // The end of it, as far as it can still be told.
  (void)timed("CloseForSend", absl::ZeroDuration(),
              [&] { return queue.CloseForSend(); });
  (void)timed("Receive from closed", absl::Milliseconds(1),
              [&] { return queue.Receive(absl::Milliseconds(1)); });
  return timed.is_late() ? 2 : 0;
}

// Two processes send and receive while a third one flips bits.
TEST(QueueHostileTest, RandomBitFlips) {
  const unsigned seed = std::random_device()();
  printf("seed %u\n", seed);
  const absl::Time end = absl::Now() + absl::Seconds(5);
  int rounds = 0;
  for (std::mt19937 random(seed); absl::Now() < end; ++rounds) {
    // With and without an arena; of one lane and of several.
    const bool large = random() % 2 == 0;
    const size_t max_bytes = large ? 1000 : 100;
    Queue queue = *Queue::CreateAnonymous(
        {.slots = uint64_t{1} << random() % 6,
         .message_bytes = max_bytes,
         .priorities = 1 + random() % 3,
         .full_policy = static_cast<FullPolicy>(random() % 4),
         .delivery = static_cast<Delivery>(random() % 2),
         .arena_bytes = large ? 16 * max_bytes : 0,
         .block_bytes = large ? 128u : 0});
    const uint32_t child_seed = random();
    const auto exercise = [&queue, max_bytes](uint32_t seed) {
      return Exercise(queue, max_bytes, seed,
                      absl::Now() + absl::Milliseconds(150));
    };
    Child a = Child::Fork([&] { return exercise(child_seed); });
    Child b = Child::Fork([&] { return exercise(child_seed + 1); });
    Child c = Child::Fork([&] {
      // One that attaches meanwhile, too.
      const absl::Time until = absl::Now() + absl::Milliseconds(150);
      Stopwatch timed;
      while (absl::Now() < until) {
        absl::StatusOr<Queue> other =
            timed("FromFd", absl::ZeroDuration(), [&] {
              return Queue::FromFd(
                  UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0)));
            });
        if (!other.ok()) continue;
        (void)timed("TryReceive", absl::ZeroDuration(),
                    [&] { return other->TryReceive(); });
      }
      return timed.is_late() ? 2 : 0;
    });
    const absl::Span<std::byte> bytes = QueueTestPeer::bytes(queue);
    const absl::Time until = absl::Now() + absl::Milliseconds(100);
    while (absl::Now() < until) {
      for (int i = random() % 3; i >= 0; --i) {
        // Half of them in the header.
        const size_t range =
            random() % 2 == 0 ? sizeof(Header) + 64 : bytes.size();
        // Atomic, as tearing is not what this is about.
        reinterpret_cast<std::atomic<uint8_t>&>(bytes[random() % range])
            .fetch_xor(uint8_t{1} << random() % 8);
      }
      // At random moments of what they do; nothing is waited for.
      absl::SleepFor(absl::Microseconds(random() % 500));
    }
    EXPECT_EQ(a.Wait(), 0);
    EXPECT_EQ(b.Wait(), 0);
    EXPECT_EQ(c.Wait(), 0);
  }
  printf("%d rounds\n", rounds);
}

}  // namespace
}  // namespace ipc::mqueue
