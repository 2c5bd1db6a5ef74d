// Producers and consumers killed at random, for as long as one likes:
//
//   bazel test //tests/ipc/mqueue:queue_soak_test --test_arg=--soak_seconds=600
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/block_word.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "tests/ipc/mqueue/numbered_message.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

ABSL_FLAG(int, soak_seconds, 20, "how long to kill, all shapes together");

namespace ipc::mqueue {
namespace {

using testing::Child;

// Long enough never to pass unless something hangs.
constexpr absl::Duration kPatience = absl::Seconds(60);

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

struct Shape {
  const char* name;
  Delivery delivery;
  size_t message_bytes;
};

class QueueSoakTest : public ::testing::TestWithParam<Shape> {};

INSTANTIATE_TEST_SUITE_P(
    Shapes, QueueSoakTest,
    ::testing::Values(Shape{"Inline", Delivery::kAutoAck, 200},
                      Shape{"Arena", Delivery::kAutoAck, 3000},
                      Shape{"ExplicitAck", Delivery::kExplicitAck, 3000}),
    [](const auto& info) { return info.param.name; });

// Receives one message, with explicit acknowledgement or without, and tells
// `got` about it before it is done with.
absl::Status ReceiveOne(
    Queue& queue, Delivery delivery,
    const std::function<void(const std::optional<NumberedMessage>&)>& got,
    size_t max_bytes) {
  if (delivery == Delivery::kAutoAck) {
    absl::StatusOr<std::string> text = queue.Receive(kPatience);
    if (!text.ok()) return text.status();
    got(NumberedMessage::Decode(*text, max_bytes));
    return absl::OkStatus();
  }
  absl::StatusOr<Message> message = queue.ReceiveMessage(kPatience);
  if (!message.ok()) return message.status();
  got(NumberedMessage::Decode(message->data(), max_bytes));
  return message->Ack();
}

// Producers and consumers are killed at random and replaced, for some seconds.
// Then: no torn message, and none missing that was sent, but with automatic
// acknowledgement those whose receiver was killed after its Receive returned,
// at most one for each; none twice, but with explicit acknowledgement those
// whose receiver was killed before its Ack. No slot and no block is lost.
TEST_P(QueueSoakTest, RandomKills) {
  const Shape& shape = GetParam();
  const size_t max_bytes = shape.message_bytes;
  const unsigned seed = std::random_device()();
  printf("seed %u\n", seed);
  std::mt19937 random(seed);
  void* memory = mmap(nullptr, sizeof(Record), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  Record* record = new (memory) Record;
  Queue queue = *Queue::CreateAnonymous({.slots = 8,
                                         .message_bytes = max_bytes,
                                         .delivery = shape.delivery,
                                         .arena_bytes = 16 * max_bytes,
                                         .block_bytes = 512,
                                         .participants = 64});

  int senders = 0;
  const auto spawn_sender = [&] {
    const int id = senders++;
    return Child::Fork([&queue, record, id, max_bytes] {
      for (uint64_t n = 0; n < Record::kPerSender && !record->stop; ++n) {
        const std::string text =
            NumberedMessage{static_cast<uint64_t>(id), n}.Encode(max_bytes);
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
    return Child::Fork([&queue, record, &shape] {
      const auto got = [record](const std::optional<NumberedMessage>& message) {
        if (!message.has_value() || message->sender >= Record::kPeers ||
            message->number >= Record::kPerSender) {
          record->torn.fetch_add(1);
          return;
        }
        record->seen[message->sender][message->number].fetch_add(1);
        record->taken.fetch_add(1);
      };
      while (true) {
        absl::Status status =
            ReceiveOne(queue, shape.delivery, got, shape.message_bytes);
        if (absl::IsOutOfRange(status)) return 0;
        if (!status.ok()) {
          fprintf(stderr, "Receive: %s\n", status.ToString().c_str());
          record->failed.fetch_add(1);
          return 1;
        }
      }
    });
  };

  std::vector<Child> producers, consumers;
  for (int i = 0; i < 2; ++i) {
    producers.push_back(spawn_sender());
    consumers.push_back(spawn_receiver());
  }
  int kills = 0, killed_consumers = 0;
  const absl::Time end =
      absl::Now() + absl::GetFlag(FLAGS_soak_seconds) * absl::Seconds(1) / 3;
  while (absl::Now() < end && senders < Record::kPeers) {
    // A random moment; nothing is waited for here.
    usleep(std::uniform_int_distribution<>(0, 20'000)(random));
    const bool producer = random() % 2 == 0;
    auto& victims = producer ? producers : consumers;
    Child& victim = victims[random() % victims.size()];
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
  for (Child& producer : producers) EXPECT_EQ(producer.Wait(), 0);
  ASSERT_TRUE(queue.CloseForSend().ok());
  for (Child& consumer : consumers) EXPECT_EQ(consumer.Wait(), 0);
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
      "receivers, %lu twice, %lu skipped, %lu redelivered, %lu reaped\n",
      kills, confirmed, record->taken.load(), missing, killed_consumers, twice,
      stats.skipped, stats.redelivered, stats.reaped);
  EXPECT_EQ(record->failed, 0u);
  EXPECT_EQ(record->torn, 0u);
  const bool auto_ack = shape.delivery == Delivery::kAutoAck;
  EXPECT_LE(twice, auto_ack ? 0u : static_cast<uint64_t>(killed_consumers));
  EXPECT_EQ(unsent, 0u);
  EXPECT_LE(missing, auto_ack ? static_cast<uint64_t>(killed_consumers) : 0u);
  EXPECT_EQ(stats.sent, stats.received);
  EXPECT_EQ(stats.pending, 0u);
  EXPECT_EQ(stats.unacked, 0u);
  // Nobody had to wait for what the last ones dead held.
  QueueTestPeer::attachment(queue).ReapAll();
  const Arena& arena = QueueTestPeer::arena(queue);
  for (uint32_t i = 0; i < arena.block_count(); ++i) {
    EXPECT_FALSE(arena.Load(i).IsInUse()) << "block " << i;
  }
  munmap(memory, sizeof(Record));
}

}  // namespace
}  // namespace ipc::mqueue

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  absl::ParseCommandLine(argc, argv);
  return RUN_ALL_TESTS();
}
