// Messages that lie in the arena: their sizes, loans, and what the dead held.
#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/block_word.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

// Every byte depends on the size and on its place.
std::string Pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>((i * 31 + size) >> 3);
  }
  return text;
}

uint32_t BlocksInUse(Queue& queue) {
  const Arena& arena = QueueTestPeer::arena(queue);
  uint32_t used = 0;
  for (uint32_t i = 0; i < arena.block_count(); ++i) {
    used += arena.Load(i).IsInUse() ? 1 : 0;
  }
  return used;
}

TEST(QueueArenaTest, MessagesOfAllSizes) {
  Queue queue = *Queue::CreateAnonymous(
      {.slots = 4, .message_bytes = 1 << 20, .block_bytes = 4096});
  EXPECT_EQ(queue.max_message_bytes(), 1u << 20);
  for (const size_t size :
       {0, 1, 239, 240, 241, 4095, 4096, 4097, 8192, 100'000, 1 << 20}) {
    const std::string text = Pattern(size);
    ASSERT_TRUE(queue.Send(text).ok());
    EXPECT_EQ(*queue.Receive(), text);
    ASSERT_TRUE(queue.Send(text).ok());
    std::vector<std::byte> buffer(size + 1);
    ASSERT_EQ(*queue.ReceiveInto(absl::MakeSpan(buffer)), size);
    EXPECT_EQ(std::memcmp(buffer.data(), text.data(), size), 0);
    ASSERT_TRUE(queue.Send(text).ok());
    EXPECT_EQ(queue.ReceiveMessage()->text(), text);
  }
  EXPECT_EQ(queue.Send(Pattern((1 << 20) + 1)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(BlocksInUse(queue), 0u);
}

TEST(QueueArenaTest, MessageAsLargeAsTheArena) {
  Queue queue = *Queue::CreateAnonymous({.message_bytes = 64 * 1024,
                                         .arena_bytes = 64 * 1024,
                                         .block_bytes = 4096});
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(queue.Send(Pattern(64 * 1024)).ok());
    absl::Status status = queue.TrySend(Pattern(300));
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(status.message(), HasSubstr("arena"));
    // Short ones do not need it.
    ASSERT_TRUE(queue.TrySend("short").ok());
    EXPECT_EQ(*queue.Receive(), Pattern(64 * 1024));
    EXPECT_EQ(*queue.Receive(), "short");
  }
}

// Runs of different lengths come and go, in another order than they came.
TEST(QueueArenaTest, RunsDoNotOverlap) {
  Queue queue = *Queue::CreateAnonymous({.slots = 64,
                                         .message_bytes = 16 * 1024,
                                         .arena_bytes = 128 * 1024,
                                         .block_bytes = 1024});
  std::vector<Message> held;
  uint32_t state = 1;
  for (int i = 0; i < 20'000; ++i) {
    state = state * 1664525 + 1013904223;
    const size_t size = 241 + (state >> 16) % (16 * 1024 - 241);
    absl::Status status = queue.TrySend(Pattern(size));
    if (status.ok()) {
      held.push_back(*queue.ReceiveMessage());
    } else {
      ASSERT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    }
    if (!status.ok() || state % 3 == 0) {
      ASSERT_FALSE(held.empty());
      const size_t victim = (state >> 8) % held.size();
      ASSERT_EQ(held[victim].text(), Pattern(held[victim].data().size()));
      std::swap(held[victim], held.back());
      held.pop_back();
    }
  }
  for (const Message& message : held) {
    EXPECT_EQ(message.text(), Pattern(message.data().size()));
  }
  held.clear();
  EXPECT_EQ(BlocksInUse(queue), 0u);
  // Nothing is lost in the cracks.
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(queue.TrySend(Pattern(16384)).ok());
}

// Short messages that are kept must not lie all over the arena.
TEST(QueueArenaTest, LongMessageFindsARunBesideKeptOnes) {
  constexpr size_t kBlock = 64 << 10;
  constexpr size_t kBlocks = 128;
  Queue queue = *Queue::CreateAnonymous({.slots = 16,
                                         .message_bytes = kBlocks * kBlock,
                                         .arena_bytes = kBlocks * kBlock,
                                         .block_bytes = kBlock});
  std::vector<Message> kept;
  for (size_t i = 0; i < 5 * kBlocks; ++i) {
    ASSERT_TRUE(queue.Send(std::string(1000, 's'), absl::ZeroDuration()).ok());
    absl::StatusOr<Message> message =
        queue.ReceiveMessage(absl::ZeroDuration());
    ASSERT_TRUE(message.ok()) << message.status();
    if (i % 64 == 0) kept.push_back(*std::move(message));
  }
  ASSERT_EQ(kept.size(), 10u);
  EXPECT_TRUE(
      queue.Send(std::string(kBlocks / 2 * kBlock, 'l'), absl::ZeroDuration())
          .ok());
}

TEST(QueueArenaTest, SenderWaitsForABlock) {
  Queue queue = *Queue::CreateAnonymous(
      {.message_bytes = 4096, .arena_bytes = 8192, .block_bytes = 4096});
  ASSERT_TRUE(queue.Send(Pattern(4096)).ok());
  Message kept = *queue.ReceiveMessage();
  ASSERT_TRUE(queue.Send(Pattern(4095)).ok());
  EXPECT_EQ(queue.Send(Pattern(4094), absl::Milliseconds(5)).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GT(queue.stats().blocked, absl::Milliseconds(4));
  // No tick from here on: only the Ack wakes it.
  QueueTestPeer::SetParkTick(queue, 2 * kPatience);
  Child sender = Child::Fork(
      [&] { return queue.Send(Pattern(4094), kPatience).ok() ? 0 : 1; });
  sender.AwaitSleep();
  EXPECT_EQ(kept.text(), Pattern(4096));
  ASSERT_TRUE(kept.Ack().ok());
  EXPECT_EQ(sender.Wait(), 0);
  EXPECT_EQ(*queue.Receive(), Pattern(4095));
  EXPECT_EQ(*queue.Receive(), Pattern(4094));
}

TEST(QueueArenaTest, LoanIsFilledAndReadInPlace) {
  Queue queue = *Queue::CreateAnonymous({.message_bytes = 1 << 20});
  Loan loan = *queue.TryLoan(1 << 20);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(loan.data().data()) % 64, 0u);
  std::byte* const memory = loan.data().data();
  const std::string text = Pattern(1 << 20);
  std::memcpy(memory, text.data(), text.size());
  ASSERT_TRUE(queue.Send(std::move(loan), {.type = 7}).ok());
  absl::StatusOr<Message> message = queue.ReceiveMessage();
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->data().data(), memory) << "the same memory, not a copy";
  EXPECT_EQ(message->text(), text);
  EXPECT_EQ(message->type(), 7);
  EXPECT_FALSE(message->redelivered());
}

TEST(QueueArenaTest, SmallLoanAndTruncatedLoan) {
  Queue queue = *Queue::CreateAnonymous({.message_bytes = 1000});
  for (const size_t size : {0, 1, 240, 241, 1000}) {
    Loan loan = *queue.TryLoan(size);
    ASSERT_EQ(loan.data().size(), size);
    const std::string text = Pattern(size);
    std::memcpy(loan.data().data(), text.data(), size);
    loan.Truncate(size / 2);
    ASSERT_TRUE(queue.Send(std::move(loan)).ok());
    EXPECT_EQ(*queue.Receive(), text.substr(0, size / 2));
  }
  EXPECT_EQ(queue.TryLoan(1001).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(BlocksInUse(queue), 0u);
}

TEST(QueueArenaTest, LoanNotSentIsGivenBack) {
  Queue queue = *Queue::CreateAnonymous(
      {.message_bytes = 4096, .arena_bytes = 8192, .block_bytes = 4096});
  {
    Loan first = *queue.TryLoan(4096);
    Loan second = *queue.TryLoan(4096);
    EXPECT_EQ(queue.TryLoan(4096).status().code(),
              absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(queue.Lend(4096, absl::Milliseconds(2)).status().code(),
              absl::StatusCode::kDeadlineExceeded);
    first = std::move(second);
    EXPECT_EQ(BlocksInUse(queue), 1u);
  }
  EXPECT_EQ(BlocksInUse(queue), 0u);
}

TEST(QueueArenaTest, FailedSendLeavesTheLoan) {
  Queue queue = *Queue::CreateAnonymous({.slots = 1, .message_bytes = 4096});
  Queue other = *Queue::CreateAnonymous({.message_bytes = 4096});
  ASSERT_TRUE(queue.Send("full").ok());
  Loan loan = *queue.TryLoan(4096);
  // Not std::move: a Send that fails leaves it, as is to be shown.
  EXPECT_EQ(
      queue.Send(static_cast<Loan&&>(loan), {.timeout = absl::Milliseconds(1)})
          .code(),
      absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(other.Send(static_cast<Loan&&>(loan)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(queue.Send(static_cast<Loan&&>(loan), {.priority = 1}).code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(loan.data().size(), 4096u);
  EXPECT_TRUE(queue.Receive().ok());
  EXPECT_TRUE(queue.Send(static_cast<Loan&&>(loan)).ok());
  EXPECT_EQ(queue.Send(static_cast<Loan&&>(loan)).code(),
            absl::StatusCode::kInvalidArgument)
      << "sent already";
}

// A forked child has its parent's handles, but not what they stand for.
TEST(QueueArenaTest, ChildDoesNotGiveBackItsParents) {
  Queue queue = *Queue::CreateAnonymous({.message_bytes = 4096});
  ASSERT_TRUE(queue.Send(Pattern(4096)).ok());
  std::optional<Message> message = *queue.ReceiveMessage();
  std::optional<Loan> loan = *queue.TryLoan(4096);
  Child child = Child::Fork([&] {
    if (message->text() != Pattern(4096)) return 1;
    if (queue.Send(static_cast<Loan&&>(*loan)).code() !=
        absl::StatusCode::kFailedPrecondition) {
      return 2;
    }
    message.reset();
    loan.reset();
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(BlocksInUse(queue), 2u);
  EXPECT_EQ(message->text(), Pattern(4096));
  message.reset();
  loan.reset();
  EXPECT_EQ(BlocksInUse(queue), 0u);
}

// What the dead had lent and received is free again, and nothing is delivered
// twice.
TEST(QueueArenaTest, BlocksOfTheDeadAreFreed) {
  Queue queue = *Queue::CreateAnonymous({.message_bytes = 4096});
  ASSERT_TRUE(queue.Send(Pattern(4096)).ok());
  Child child = Child::Fork([&] {
    absl::StatusOr<Loan> loan = queue.TryLoan(4096);
    absl::StatusOr<Message> message = queue.ReceiveMessage();
    if (!loan.ok() || !message.ok()) return 1;
    Child::StopSelf();
    return 2;
  });
  child.AwaitStop();
  EXPECT_EQ(BlocksInUse(queue), 2u);
  child.Kill();
  EXPECT_EQ(queue.Receive(3 * Queue::kParkTick).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(BlocksInUse(queue), 0u);
  EXPECT_EQ(queue.stats().reaped, 1u);
}

// Several threads and two processes; each message is checked in every byte.
TEST(QueueArenaTest, ManySendersAndReceivers) {
  constexpr int kMessages = 3000;
  Queue queue = *Queue::CreateAnonymous({.slots = 16,
                                         .message_bytes = 10'000,
                                         .arena_bytes = 100'000,
                                         .block_bytes = 1024});
  const auto send = [&](int seed) {
    for (int i = 0; i < kMessages; ++i) {
      const size_t size = 200 + (i * 7919 + seed * 104729) % 9800;
      absl::StatusOr<Loan> loan = queue.Lend(size, kPatience);
      if (!loan.ok()) return 1;
      const std::string text = Pattern(size);
      std::memcpy(loan->data().data(), text.data(), size);
      if (!queue.Send(*std::move(loan), {.timeout = kPatience}).ok()) return 2;
    }
    return 0;
  };
  Child a = Child::Fork([&] { return send(1); });
  Child b = Child::Fork([&] { return send(2); });
  int received = 0, wrong = 0;
  std::thread closer([&] {
    if (a.Wait() != 0 || b.Wait() != 0) ++wrong;
    (void)queue.CloseForSend();
  });
  while (true) {
    absl::StatusOr<std::vector<Message>> batch =
        queue.ReceiveBatch(4, kPatience);
    if (!batch.ok()) {
      EXPECT_EQ(batch.status().code(), absl::StatusCode::kOutOfRange);
      break;
    }
    for (const Message& message : *batch) {
      ++received;
      wrong += message.text() == Pattern(message.data().size()) ? 0 : 1;
    }
  }
  closer.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(received, 2 * kMessages);
  EXPECT_EQ(BlocksInUse(queue), 0u);
}

TEST(QueueArenaTest, OptionsOutOfRange) {
  for (const Options& options : {
           Options{.message_bytes = 0},
           Options{.message_bytes = (uint64_t{1} << 40) + 1},
           Options{
               .message_bytes = 1000, .arena_bytes = 900, .block_bytes = 64},
           Options{.message_bytes = 1000, .block_bytes = (1u << 30) + 1},
           Options{.arena_bytes = uint64_t{1} << 60, .block_bytes = 64},
           Options{.priorities = 0},
           Options{.priorities = 9},
       }) {
    absl::Status status = Queue::CreateAnonymous(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("mqueue of"));
  }
}

}  // namespace
}  // namespace ipc::mqueue
