// Producers and consumers killed and stopped at random, for as long as one
// likes:
//
//   bazel test //tests/ipc/mqueue:queue_soak_test --test_arg=--soak_seconds=600
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iterator>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/base/participants.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/block_word.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/policy.h"
#include "ipc/mqueue/queue.h"
#include "ipc/mqueue/slot_ring.h"
#include "ipc/mqueue/slot_word.h"
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
  // By peer: its index among the participants + 1, once it is attached.
  std::atomic<uint32_t> participant[kPeers];
  std::atomic<uint64_t> attempted[kPeers];  // by sender: Send was called
  std::atomic<uint64_t> confirmed[kPeers];  // by sender: Send returned OK
  std::atomic<uint64_t> taken;              // Receive returned, by anybody
  std::atomic<uint8_t> seen[kPeers][kPerSender];  // how often received
};

struct Shape {
  const char* name;
  Delivery delivery;
  size_t message_bytes;
  int lap_bits = SlotWord::kMaxLapBits;
};

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

// One queue with its producers and consumers, of whom as many come and go as
// the record has room for.
class Soak {
 public:
  Soak(const Shape& shape, std::mt19937* random)
      : shape_(shape),
        random_(*random),
        queue_(*QueueTestPeer::CreateWithLapBits(
            {.slots = 8,
             .message_bytes = shape.message_bytes,
             .delivery = shape.delivery,
             .arena_bytes =
                 shape.message_bytes > 240 ? 16 * shape.message_bytes : 0,
             .block_bytes = shape.message_bytes > 240 ? 512u : 0,
             .participants = 64},
            shape.lap_bits)) {
    void* memory = mmap(nullptr, sizeof(Record), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    record_ = new (memory) Record;
    for (int i = 0; i < 2; ++i) {
      producers_.push_back(Spawn(true));
      consumers_.push_back(Spawn(false));
    }
  }
  ~Soak() { munmap(record_, sizeof(Record)); }

  // Until `end`, or nobody is left to come.
  void Run(absl::Time end) {
    while (absl::Now() < end && peers_ < Record::kPeers &&
           !::testing::Test::HasFailure()) {
      // A random moment; nothing is waited for here.
      usleep(Random(0, 10'000));
      const bool producer = Random(0, 1) == 0;
      Peer& victim = (producer ? producers_ : consumers_)[Random(0, 1)];
      switch (Random(0, 15)) {
        case 0:  // Stopped for a moment, wherever it is.
          victim.child.Stop();
          usleep(Random(0, 2'000));
          victim.child.Continue();
          continue;
        case 1:
        case 2:  // Killed wherever it is, and perhaps stopped.
          Replace(victim, producer);
          continue;
        case 3:
          if (StopInTheMiddle(victim, end)) CheckStopped(victim);
          victim.child.Continue();
          continue;
        default:
          in_the_middle_ += StopInTheMiddle(victim, end) ? 1 : 0;
          Replace(victim, producer);
      }
    }
  }

  // No torn message, and none missing that was sent, but with automatic
  // acknowledgement those whose receiver was killed after its Receive returned,
  // at most one for each; none twice, but with explicit acknowledgement those
  // whose receiver was killed before its Ack. No slot and no block is lost.
  void Finish() {
    record_->stop.store(true);
    for (Peer& producer : producers_) EXPECT_EQ(producer.child.Wait(), 0);
    ASSERT_TRUE(queue_.CloseForSend().ok());
    for (Peer& consumer : consumers_) EXPECT_EQ(consumer.child.Wait(), 0);
    EXPECT_EQ(queue_.Receive(kPatience).status().code(),
              absl::StatusCode::kOutOfRange);

    uint64_t confirmed = 0, missing = 0, twice = 0, unsent = 0;
    for (int s = 0; s < peers_; ++s) {
      confirmed += record_->confirmed[s];
      for (uint64_t n = 0; n < Record::kPerSender; ++n) {
        const int seen = record_->seen[s][n];
        twice += seen > 1 ? 1 : 0;
        missing += n < record_->confirmed[s] && seen == 0 ? 1 : 0;
        unsent += n >= record_->attempted[s] && seen > 0 ? 1 : 0;
      }
    }
    const Stats stats = queue_.stats();
    printf(
        "%d kills, %d of them and %d long stops in the middle of a send or "
        "receive, %lu messages confirmed, %lu received, %lu lost with one of "
        "%d receivers, %lu twice, %lu skipped, %lu redelivered, %lu reaped\n",
        kills_, in_the_middle_, long_stops_, confirmed, record_->taken.load(),
        missing, killed_consumers_, twice, stats.skipped, stats.redelivered,
        stats.reaped);
    EXPECT_EQ(record_->failed, 0u);
    EXPECT_EQ(record_->torn, 0u);
    const bool auto_ack = shape_.delivery == Delivery::kAutoAck;
    const auto killed = static_cast<uint64_t>(killed_consumers_);
    EXPECT_LE(twice, auto_ack ? 0u : killed);
    EXPECT_EQ(unsent, 0u);
    EXPECT_LE(missing, auto_ack ? killed : 0u);
    EXPECT_EQ(stats.sent, stats.received);
    EXPECT_EQ(stats.pending, 0u);
    EXPECT_EQ(stats.unacked, 0u);
    // Nobody had to wait for what the last ones dead held.
    QueueTestPeer::attachment(queue_).ReapAll();
    const Arena& arena = QueueTestPeer::arena(queue_);
    for (uint32_t i = 0; i < arena.block_count(); ++i) {
      EXPECT_FALSE(arena.Load(i).IsInUse()) << "block " << i;
    }
  }

  int kills() const { return kills_; }
  int in_the_middle() const { return in_the_middle_; }
  int long_stops() const { return long_stops_; }

 private:
  struct Peer {
    int id;
    Child child;
  };

  int Random(int from, int to) {
    return std::uniform_int_distribution<>(from, to)(random_);
  }

  Peer Spawn(bool producer) {
    const int id = peers_++;
    return {id, Child::Fork([this, id, producer] {
              record_->participant[id].store(
                  QueueTestPeer::attachment(queue_).Self()->index + 1);
              return producer ? SendAll(id) : ReceiveAll();
            })};
  }

  int SendAll(int id) {
    const size_t max_bytes = shape_.message_bytes;
    for (uint64_t n = 0; n < Record::kPerSender && !record_->stop; ++n) {
      const std::string text =
          NumberedMessage{static_cast<uint64_t>(id), n}.Encode(max_bytes);
      record_->attempted[id].store(n + 1);
      const absl::Status status = queue_.Send(text, kPatience);
      if (absl::IsFailedPrecondition(status)) return 0;
      if (!status.ok()) return Failed(status);
      record_->confirmed[id].store(n + 1);
    }
    // Out of numbers: stays to be killed.
    while (!record_->stop) usleep(1000);
    return 0;
  }

  int ReceiveAll() {
    const auto got = [this](const std::optional<NumberedMessage>& message) {
      if (!message.has_value() || message->sender >= Record::kPeers ||
          message->number >= Record::kPerSender) {
        record_->torn.fetch_add(1);
        return;
      }
      record_->seen[message->sender][message->number].fetch_add(1);
      record_->taken.fetch_add(1);
    };
    while (true) {
      absl::Status status =
          ReceiveOne(queue_, shape_.delivery, got, shape_.message_bytes);
      if (absl::IsOutOfRange(status)) return 0;
      if (!status.ok()) return Failed(status);
    }
  }

  int Failed(const absl::Status& status) {
    fprintf(stderr, "%s\n", status.ToString().c_str());
    record_->failed.fetch_add(1);
    return 1;
  }

  void Replace(Peer& victim, bool producer) {
    victim.child.Kill();
    ++kills_;
    killed_consumers_ += producer ? 0 : 1;
    Peer next = Spawn(producer);
    std::swap(victim.id, next.id);
    std::swap(victim.child, next.child);
  }

  // What `peer` holds: the words of its slots and of its blocks.
  std::vector<uint64_t> Held(const Peer& peer) {
    std::vector<uint64_t> held;
    const uint32_t participant = record_->participant[peer.id].load();
    if (participant == 0) return held;
    const SlotRing& ring = QueueTestPeer::ring(queue_);
    for (uint32_t i = 0; i < queue_.capacity(); ++i) {
      const SlotWord word = ring.Load(i);
      if (word.IsOwned() && word.owner_index() == participant - 1) {
        held.push_back(word.bits());
      }
    }
    const Arena& arena = QueueTestPeer::arena(queue_);
    for (uint32_t i = 0; i < arena.block_count(); ++i) {
      const BlockWord word = arena.Load(i);
      if (word.IsOwned() && word.owner_index() == participant - 1) {
        held.push_back(word.bits());
      }
    }
    return held;
  }

  // Stops it again and again, until that is where it holds something. False if
  // it did not for long; it is stopped anyway.
  bool StopInTheMiddle(const Peer& peer, absl::Time end) {
    for (int i = 0; i < 2000; ++i) {
      peer.child.Stop();
      if (!Held(peer).empty()) return true;
      if (absl::Now() > end) return false;
      peer.child.Continue();
      usleep(Random(0, 200));
    }
    peer.child.Stop();
    return false;
  }

  // Stopped is not dead, however often others look. Its message is accounted
  // for like any other.
  void CheckStopped(const Peer& peer) {
    const std::vector<uint64_t> held = Held(peer);
    const ParticipantTable table = QueueTestPeer::participants(queue_);
    const uint32_t index = record_->participant[peer.id].load() - 1;
    const ParticipantTable::Entry before = table.Load(index);
    // All who wait look for the dead several times meanwhile.
    absl::SleepFor(5 * Queue::kParkTick);
    EXPECT_EQ(Held(peer), held) << "taken from a living owner";
    EXPECT_EQ(table.Load(index).state, ParticipantTable::State::kAlive);
    EXPECT_EQ(table.Load(index).epoch, before.epoch);
    ++long_stops_;
  }

  const Shape& shape_;
  std::mt19937& random_;
  Queue queue_;
  Record* record_ = nullptr;
  std::vector<Peer> producers_, consumers_;
  int peers_ = 0;
  int kills_ = 0;
  int killed_consumers_ = 0;
  int in_the_middle_ = 0;
  int long_stops_ = 0;
};

// With laps of 4 bits, which a process may well be stopped for half of; what
// may then be lost is the order.
const Shape kShapes[] = {
    {"Inline", Delivery::kAutoAck, 200},
    {"Arena", Delivery::kAutoAck, 3000},
    {"ExplicitAck", Delivery::kExplicitAck, 3000},
    {"ShortLaps", Delivery::kAutoAck, 200, SlotWord::kMinLapBits},
};

class QueueSoakTest : public ::testing::TestWithParam<Shape> {};

INSTANTIATE_TEST_SUITE_P(Shapes, QueueSoakTest, ::testing::ValuesIn(kShapes),
                         [](const auto& info) { return info.param.name; });

TEST_P(QueueSoakTest, RandomKills) {
  const unsigned seed = std::random_device()();
  printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const absl::Time end =
      absl::Now() + absl::GetFlag(FLAGS_soak_seconds) * absl::Seconds(1) /
                        static_cast<int64_t>(std::size(kShapes));
  int kills = 0, in_the_middle = 0, long_stops = 0;
  while (absl::Now() < end && !HasFailure()) {
    Soak soak(GetParam(), &random);
    soak.Run(end);
    soak.Finish();
    kills += soak.kills();
    in_the_middle += soak.in_the_middle();
    long_stops += soak.long_stops();
  }
  printf("%d kills and %d long stops in the middle, of %d kills\n",
         in_the_middle, long_stops, kills);
  EXPECT_GT(kills, 0);
  // Or this would be a test of idle processes.
  EXPECT_GT(in_the_middle, kills / 4);
}

}  // namespace
}  // namespace ipc::mqueue

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  absl::ParseCommandLine(argc, argv);
  return RUN_ALL_TESTS();
}
