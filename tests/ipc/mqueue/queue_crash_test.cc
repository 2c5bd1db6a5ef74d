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
#include "tests/ipc/mqueue/child_process.h"
#include "tests/ipc/mqueue/numbered_message.h"
#include "tests/ipc/mqueue/queue_test_peer.h"

namespace ipc::mqueue {
namespace {

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
  ChildProcess::StopSelf();
  QueueTestPeer::ring(queue).Fill(claim, message, 0);
  return commit && QueueTestPeer::ring(queue).CommitSend(claim) ? 0 : 2;
}

int StopWhileReading(Queue& queue) {
  SlotRing::Claim claim;
  if (QueueTestPeer::BeginReceive(queue, &claim) != SlotRing::Outcome::kOk) {
    return 1;
  }
  ChildProcess::StopSelf();
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
    ChildProcess writer([&] { return StopWhileWriting(queue_, false); });
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
  ChildProcess writer([&] { return StopWhileWriting(queue_, false); });
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
  ChildProcess reader([&] { return StopWhileReading(queue_); });
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
    ChildProcess reader([&] { return StopWhileReading(queue_); });
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
  ChildProcess reader([&] { return StopWhileReading(queue_); });
  reader.AwaitStop();
  for (int i = 1; i < GetParam(); ++i) ASSERT_TRUE(queue_.TrySend("x").ok());
  ASSERT_FALSE(queue_.TrySend("no room").ok());
  reader.Kill();
  ChildProcess sender([&] { return queue_.Send("last").ok() ? 0 : 1; });
  // The redelivered one comes once the death is seen, perhaps after others.
  std::multiset<std::string> expected = {"first", "last"}, received;
  for (int i = 1; i < GetParam(); ++i) expected.insert("x");
  for (int i = 0; i <= GetParam(); ++i) {
    received.insert(*queue_.Receive(kPatience));
  }
  EXPECT_EQ(received, expected);
  EXPECT_EQ(sender.Join(), 0);
}

// A message that is being received when the queue is closed may come back, so
// the end is not told before.
TEST_P(QueueCrashTest, EndWaitsForAReaderThatMayDie) {
  ASSERT_TRUE(queue_.Send("message").ok());
  ChildProcess reader([&] { return StopWhileReading(queue_); });
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
  ChildProcess writer([&] { return StopWhileWriting(queue_, true); });
  writer.AwaitStop();
  EXPECT_EQ(queue_.Receive(6 * Queue::kParkTick).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(queue_.stats().reaped, 0u);
  writer.Continue();
  absl::StatusOr<std::string> text = queue_.Receive(kPatience);
  ASSERT_TRUE(text.ok());
  ASSERT_TRUE(NumberedMessage::Decode(*text).has_value());
  EXPECT_EQ(NumberedMessage::Decode(*text)->number, 7u);
  EXPECT_EQ(writer.Join(), 0);
}

TEST_P(QueueCrashTest, ReaderStoppedKeepsItsMessage) {
  ASSERT_TRUE(queue_.Send("message").ok());
  ChildProcess reader([&] { return StopWhileReading(queue_); });
  reader.AwaitStop();
  EXPECT_EQ(queue_.Receive(6 * Queue::kParkTick).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  reader.Continue();
  EXPECT_EQ(reader.Join(), 0);
  EXPECT_EQ(*queue_.TryReceive(), std::nullopt);
  EXPECT_EQ(queue_.stats().received, 1u);
}

// A writer is killed whose child, forked while it was attached, lives on.
TEST_P(QueueCrashTest, ParentKilledWhileItsChildLives) {
  Queue up = *Queue::CreateAnonymous(), down = *Queue::CreateAnonymous();
  ChildProcess parent([&] {
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
    ChildProcess victim([&] { return queue_.Receive().ok() ? 0 : 1; });
    ChildProcess survivor([&] {
      while (true) {
        absl::StatusOr<std::string> message = queue_.Receive(kPatience);
        if (!message.ok()) return 1;
        if (*message == "second") return 0;
      }
    });
    ASSERT_TRUE(queue_.Send("first", kPatience).ok());
    victim.Kill();
    ASSERT_TRUE(queue_.Send("second", kPatience).ok());
    EXPECT_EQ(survivor.Join(), 0);
  }
}

// Where peers record what they did, so that it survives their death.
struct Record {
  static constexpr int kPeers = 256;
  static constexpr uint64_t kPerSender = 1 << 17;

  std::atomic<uint64_t> torn;
  std::atomic<uint64_t> failed;
  std::atomic<bool> stop;
  std::atomic<uint64_t> attempted[kPeers];  // by sender: Send was called
  std::atomic<uint64_t> confirmed[kPeers];  // by sender: Send returned OK
  std::atomic<uint64_t> taken;              // Receive returned, by anybody
  std::atomic<uint8_t> seen[kPeers][kPerSender];  // how often received
};

// Producers and consumers are killed at random and replaced, for some seconds.
// Then: no torn message, none twice, and none missing that was sent, but those
// whose receiver was killed after its Receive returned, at most one for each.
TEST(QueueSoakTest, RandomKills) {
  const unsigned seed = std::random_device()();
  printf("seed %u\n", seed);
  std::mt19937 random(seed);
  void* memory = mmap(nullptr, sizeof(Record), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  Record* record = new (memory) Record;
  Queue queue = *Queue::CreateAnonymous({.slots = 8, .participants = 64});

  int senders = 0;
  const auto spawn_sender = [&] {
    const int id = senders++;
    return ChildProcess([&queue, record, id] {
      for (uint64_t n = 0; n < Record::kPerSender && !record->stop; ++n) {
        const std::string text =
            NumberedMessage{static_cast<uint64_t>(id), n}.Encode();
        record->attempted[id].store(n + 1);
        const absl::Status status = queue.Send(text, kPatience);
        if (absl::IsFailedPrecondition(status)) return 0;
        if (!status.ok()) {
          fprintf(stderr, "Send: %s\n", status.ToString().c_str());
          record->failed.fetch_add(1);
          return 1;
        }
        record->confirmed[id].store(n + 1);
      }
      // Out of numbers: stays to be killed.
      while (!record->stop) usleep(1000);
      return 0;
    });
  };
  const auto spawn_receiver = [&] {
    return ChildProcess([&queue, record] {
      while (true) {
        absl::StatusOr<std::string> text = queue.Receive(kPatience);
        if (absl::IsOutOfRange(text.status())) return 0;
        if (!text.ok()) {
          fprintf(stderr, "Receive: %s\n", text.status().ToString().c_str());
          record->failed.fetch_add(1);
          return 1;
        }
        const std::optional<NumberedMessage> message =
            NumberedMessage::Decode(*text);
        if (!message.has_value() || message->sender >= Record::kPeers ||
            message->number >= Record::kPerSender) {
          record->torn.fetch_add(1);
          continue;
        }
        record->seen[message->sender][message->number].fetch_add(1);
        record->taken.fetch_add(1);
      }
    });
  };

  std::vector<ChildProcess> producers, consumers;
  for (int i = 0; i < 3; ++i) {
    producers.push_back(spawn_sender());
    consumers.push_back(spawn_receiver());
  }
  int kills = 0, killed_consumers = 0;
  const absl::Time end = absl::Now() + absl::Seconds(5);
  while (absl::Now() < end && senders < Record::kPeers) {
    // A random moment; nothing is waited for here.
    usleep(std::uniform_int_distribution<>(0, 20'000)(random));
    const bool producer = random() % 2 == 0;
    auto& victims = producer ? producers : consumers;
    ChildProcess& victim = victims[random() % victims.size()];
    if (random() % 4 == 0) {
      victim.Stop();
      usleep(std::uniform_int_distribution<>(0, 2'000)(random));
      if (random() % 2 == 0) {
        victim.Continue();
        continue;
      }
    }
    victim.Kill();
    victim = producer ? spawn_sender() : spawn_receiver();
    ++kills;
    killed_consumers += producer ? 0 : 1;
  }
  record->stop.store(true);
  for (ChildProcess& producer : producers) EXPECT_EQ(producer.Join(), 0);
  ASSERT_TRUE(queue.CloseForSend().ok());
  for (ChildProcess& consumer : consumers) EXPECT_EQ(consumer.Join(), 0);
  EXPECT_EQ(queue.Receive(kPatience).status().code(),
            absl::StatusCode::kOutOfRange);

  uint64_t confirmed = 0, missing = 0, twice = 0, unsent = 0;
  for (int s = 0; s < senders; ++s) {
    confirmed += record->confirmed[s];
    for (uint64_t n = 0; n < Record::kPerSender; ++n) {
      const int seen = record->seen[s][n];
      twice += seen > 1 ? 1 : 0;
      missing += n < record->confirmed[s] && seen == 0 ? 1 : 0;
      unsent += n >= record->attempted[s] && seen > 0 ? 1 : 0;
    }
  }
  const Stats stats = queue.stats();
  printf(
      "%d kills, %lu messages confirmed, %lu received, %lu lost with one of %d "
      "receivers, %lu skipped, %lu redelivered, %lu reaped\n",
      kills, confirmed, record->taken.load(), missing, killed_consumers,
      stats.skipped, stats.redelivered, stats.reaped);
  EXPECT_EQ(record->failed, 0u);
  EXPECT_EQ(record->torn, 0u);
  EXPECT_EQ(twice, 0u);
  EXPECT_EQ(unsent, 0u);
  EXPECT_LE(missing, static_cast<uint64_t>(killed_consumers));
  EXPECT_EQ(stats.sent, stats.received);
  EXPECT_EQ(stats.pending, 0u);
  munmap(memory, sizeof(Record));
}

}  // namespace
}  // namespace ipc::mqueue
