// Many senders and receivers, as processes and as threads: every message comes
// exactly once, and those of one sender come to any one receiver in order.
#include <fcntl.h>
#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/queue.h"
#include "tests/ipc/mqueue/numbered_message.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

constexpr int kMaxSenders = 8;
constexpr uint64_t kMaxMessages = 100'000;

struct Tally {
  std::atomic<uint64_t> bad;
  std::atomic<uint64_t> out_of_order;
  std::atomic<uint8_t> seen[kMaxSenders][kMaxMessages];
};

// How many take part, and in what kind of queue.
struct Shape {
  int senders;
  int receivers;
  uint64_t slots;
  uint64_t messages;  // for each sender
  int lap_bits = 32;

  friend void PrintTo(const Shape& shape, std::ostream* os) {
    *os << shape.senders << " senders, " << shape.receivers << " receivers, "
        << shape.slots << " slots, " << shape.lap_bits << " lap bits";
  }
};

int SendAll(Queue& queue, uint64_t sender, uint64_t messages) {
  for (uint64_t n = 0; n < messages; ++n) {
    if (!queue.Send(NumberedMessage{sender, n}.Encode()).ok()) return 1;
  }
  return 0;
}

int ReceiveAll(Queue& queue, Tally* tally) {
  uint64_t next[kMaxSenders] = {};
  std::byte buffer[NumberedMessage::kMaxBytes];
  while (true) {
    absl::StatusOr<size_t> size = queue.ReceiveInto(absl::MakeSpan(buffer));
    if (absl::IsOutOfRange(size.status())) return 0;
    if (!size.ok()) return 1;
    const std::optional<NumberedMessage> message =
        NumberedMessage::Decode(absl::MakeConstSpan(buffer, *size));
    if (!message.has_value() || message->sender >= kMaxSenders ||
        message->number >= kMaxMessages) {
      tally->bad.fetch_add(1);
      continue;
    }
    if (message->number < next[message->sender]) tally->out_of_order++;
    next[message->sender] = message->number + 1;
    tally->seen[message->sender][message->number].fetch_add(1);
  }
}

class QueueMpmcTest : public ::testing::TestWithParam<Shape> {
 protected:
  QueueMpmcTest() {
    void* memory = mmap(nullptr, sizeof(Tally), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    tally_ = new (memory) Tally;
  }
  ~QueueMpmcTest() override { munmap(tally_, sizeof(Tally)); }

  void Check() {
    EXPECT_EQ(tally_->bad, 0u);
    // Where a lap's number repeats soon, a sender that was long off its CPU may
    // claim a slot out of turn.
    if (GetParam().lap_bits == 32) {
      EXPECT_EQ(tally_->out_of_order, 0u);
    }
    uint64_t not_once = 0;
    for (int s = 0; s < GetParam().senders; ++s) {
      for (uint64_t n = 0; n < GetParam().messages; ++n) {
        not_once += tally_->seen[s][n] == 1 ? 0 : 1;
      }
    }
    EXPECT_EQ(not_once, 0u);
    const Stats stats = queue_.stats();
    EXPECT_EQ(stats.sent, GetParam().senders * GetParam().messages);
    EXPECT_EQ(stats.received, stats.sent);
    // Processes that exit without detaching are dead like any, but hold
    // nothing.
    EXPECT_EQ(stats.skipped + stats.redelivered, 0u);
  }

  Queue queue_ = *QueueTestPeer::CreateWithLapBits({.slots = GetParam().slots},
                                                   GetParam().lap_bits);
  Tally* tally_;
};

INSTANTIATE_TEST_SUITE_P(
    Shapes, QueueMpmcTest,
    ::testing::Values(Shape{1, 1, 1, 3'000}, Shape{1, 1, 1024, 100'000},
                      Shape{2, 2, 2, 5'000}, Shape{4, 4, 64, 20'000},
                      Shape{8, 1, 16, 5'000}, Shape{1, 8, 16, 20'000},
                      Shape{3, 3, 4, 10'000, /*lap_bits=*/4}));

TEST_P(QueueMpmcTest, Processes) {
  std::vector<Child> senders, receivers;
  for (int i = 0; i < GetParam().receivers; ++i) {
    receivers.push_back(
        Child::Fork([&] { return ReceiveAll(queue_, tally_); }));
  }
  for (int i = 0; i < GetParam().senders; ++i) {
    senders.push_back(
        Child::Fork([&] { return SendAll(queue_, i, GetParam().messages); }));
  }
  for (Child& child : senders) EXPECT_EQ(child.Wait(), 0);
  ASSERT_TRUE(queue_.CloseForSend().ok());
  for (Child& child : receivers) EXPECT_EQ(child.Wait(), 0);
  Check();
}

// ThreadSanitizer tells memory by its address: it sees the threads that share
// one object, and so one mapping.
TEST_P(QueueMpmcTest, ThreadsOfOneObject) {
  std::vector<std::thread> senders, receivers;
  for (int i = 0; i < GetParam().receivers; ++i) {
    receivers.emplace_back([&] { EXPECT_EQ(ReceiveAll(queue_, tally_), 0); });
  }
  for (int i = 0; i < GetParam().senders; ++i) {
    senders.emplace_back(
        [&, i] { EXPECT_EQ(SendAll(queue_, i, GetParam().messages), 0); });
  }
  for (std::thread& thread : senders) thread.join();
  ASSERT_TRUE(queue_.CloseForSend().ok());
  for (std::thread& thread : receivers) thread.join();
  Check();
}

TEST_P(QueueMpmcTest, ThreadsWithObjectsOfTheirOwn) {
  const auto attach = [&] {
    return *Queue::FromFd(UniqueFd(fcntl(queue_.fd(), F_DUPFD_CLOEXEC, 0)));
  };
  std::vector<std::thread> senders, receivers;
  for (int i = 0; i < GetParam().receivers; ++i) {
    receivers.emplace_back([&] {
      Queue queue = attach();
      EXPECT_EQ(ReceiveAll(queue, tally_), 0);
    });
  }
  for (int i = 0; i < GetParam().senders; ++i) {
    senders.emplace_back([&, i] {
      Queue queue = attach();
      EXPECT_EQ(SendAll(queue, i, GetParam().messages), 0);
    });
  }
  for (std::thread& thread : senders) thread.join();
  ASSERT_TRUE(queue_.CloseForSend().ok());
  for (std::thread& thread : receivers) thread.join();
  Check();
}

}  // namespace
}  // namespace ipc::mqueue
