// The behaviour of one queue in one process, and between a parent and a child.
// Tests named test_* in CPython's _TestQueue and TestSimpleQueue have the same
// names here, and those of JoinableQueue in queue_ack_test.cc.
#include "ipc/mqueue/queue.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/memory.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/policy.h"
#include "ipc/mqueue/slot_word.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

using ::testing::HasSubstr;

// Long enough never to pass unless something hangs.
constexpr absl::Duration kPatience = absl::Seconds(60);

UniqueFd Duplicate(const Queue& queue) {
  return UniqueFd(fcntl(queue.fd(), F_DUPFD_CLOEXEC, 0));
}

TEST(QueueTest, test_put) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4});
  ASSERT_TRUE(queue.Send("1").ok());
  ASSERT_TRUE(queue.Send("2", absl::InfiniteDuration()).ok());
  ASSERT_TRUE(queue.Send("3", absl::Seconds(1)).ok());
  ASSERT_TRUE(queue.TrySend("4").ok());
  EXPECT_EQ(queue.ApproximateSize(), 4u);

  absl::Status status = queue.TrySend("5");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("all 4 slots"));
  EXPECT_EQ(queue.Send("5", absl::ZeroDuration()).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(queue.Send("5", absl::Milliseconds(20)).code(),
            absl::StatusCode::kDeadlineExceeded);

  EXPECT_EQ(*queue.Receive(), "1");
  EXPECT_TRUE(queue.TrySend("5").ok());
  for (const char* expected : {"2", "3", "4", "5"}) {
    EXPECT_EQ(*queue.Receive(), expected);
  }
}

TEST(QueueTest, test_get) {
  Queue queue = *Queue::CreateAnonymous();
  EXPECT_EQ(*queue.TryReceive(), std::nullopt);
  Child child = Child::Fork([&] {
    for (const char* message : {"1", "2", "3", "4"}) {
      if (!queue.Send(message).ok()) return 1;
    }
    return 0;
  });
  EXPECT_EQ(*queue.Receive(), "1");
  EXPECT_EQ(*queue.Receive(absl::Seconds(60)), "2");
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(*queue.TryReceive(), "3");
  std::byte byte;
  EXPECT_EQ(*queue.ReceiveInto(absl::MakeSpan(&byte, 1)), 1u);
  EXPECT_EQ(byte, std::byte{'4'});
  EXPECT_EQ(*queue.TryReceive(), std::nullopt);
  EXPECT_EQ(queue.Receive(absl::ZeroDuration()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

// A child that was forked while messages were in the queue sends more of them.
TEST(QueueTest, test_fork) {
  Queue queue = *Queue::CreateAnonymous();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(queue.Send(absl::StrCat(i)).ok());
  Child child = Child::Fork([&] {
    for (int i = 10; i < 20; ++i) {
      if (!queue.Send(absl::StrCat(i)).ok()) return 1;
    }
    return 0;
  });
  for (int i = 0; i < 20; ++i) EXPECT_EQ(*queue.Receive(), absl::StrCat(i));
  EXPECT_EQ(*queue.TryReceive(), std::nullopt);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(QueueTest, test_qsize) {
  Queue queue = *Queue::CreateAnonymous();
  EXPECT_EQ(queue.ApproximateSize(), 0u);
  ASSERT_TRUE(queue.Send("1").ok());
  EXPECT_EQ(queue.ApproximateSize(), 1u);
  ASSERT_TRUE(queue.Send("5").ok());
  EXPECT_EQ(queue.ApproximateSize(), 2u);
  ASSERT_TRUE(queue.Receive().ok());
  EXPECT_EQ(queue.ApproximateSize(), 1u);
  ASSERT_TRUE(queue.Receive().ok());
  EXPECT_EQ(queue.ApproximateSize(), 0u);
}

TEST(QueueTest, test_timeout) {
  Queue queue = *Queue::CreateAnonymous();
  const absl::Time start = absl::Now();
  absl::Status status = queue.Receive(absl::Milliseconds(200)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(), HasSubstr("200ms"));
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(195));
}

// Sending after the close is an error, as is receiving once all is drained.
TEST(QueueTest, test_closed_queue_put_get_exceptions) {
  Queue queue = *Queue::CreateAnonymous();
  ASSERT_TRUE(queue.Send("last").ok());
  ASSERT_TRUE(queue.CloseForSend().ok());
  ASSERT_TRUE(queue.CloseForSend().ok());
  EXPECT_EQ(queue.Send("more").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(queue.TrySend("x").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*queue.Receive(), "last");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(queue.Receive().status().code(), absl::StatusCode::kOutOfRange);
    EXPECT_EQ(queue.TryReceive().status().code(),
              absl::StatusCode::kOutOfRange);
  }
  EXPECT_EQ(queue.Send("more").code(), absl::StatusCode::kFailedPrecondition);
}

// In Python a closed queue does not even tell whether it is empty. Here it is
// only closed for sending, so this is no error.
TEST(QueueTest, test_closed_queue_empty_exceptions) {
  for (const Delivery delivery : {Delivery::kAutoAck, Delivery::kExplicitAck}) {
    Queue queue = *Queue::CreateAnonymous({.delivery = delivery});
    ASSERT_TRUE(queue.Send("last").ok());
    ASSERT_TRUE(queue.CloseForSend().ok());
    EXPECT_EQ(queue.ApproximateSize(), 1u);
    EXPECT_EQ(*queue.Receive(), "last");
    EXPECT_EQ(queue.ApproximateSize(), 0u);
    EXPECT_EQ(queue.TryReceive().status().code(),
              absl::StatusCode::kOutOfRange);
  }
}

// Python: a module that uses a queue while it is imported, under a lock that
// whoever feeds the queue must not want. Here what is done once is: the
// initialization of a static, under its guard.
TEST(QueueTest, test_no_import_lock_contention) {
  const auto use = [] {
    Queue queue = *Queue::CreateAnonymous();
    std::thread sender([&] { EXPECT_TRUE(queue.Send("knock").ok()); });
    std::string text = *queue.Receive(kPatience);
    sender.join();
    return text;
  };
  static const std::string* const text = new std::string(use());
  EXPECT_EQ(*text, "knock");
}

// Python sends in a thread, which has to go on after what it cannot pickle.
// There is no such thread here: Send itself says what it cannot send, and the
// next one goes on.
TEST(QueueTest, test_queue_feeder_donot_stop_onexc) {
  Queue queue = *Queue::CreateAnonymous({.message_bytes = 300});
  EXPECT_EQ(queue.Send(std::string(301, 'x')).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(queue.ApproximateSize(), 0u);
  ASSERT_TRUE(queue.Send("True").ok());
  EXPECT_EQ(*queue.Receive(kPatience), "True");
  EXPECT_EQ(*queue.TryReceive(), std::nullopt);
}

// Python tells a hook of what could not be sent, and gives back the room for
// it. Here it is told to who sent it.
TEST(QueueTest, test_queue_feeder_on_queue_feeder_error) {
  Queue queue = *Queue::CreateAnonymous({.slots = 1,
                                         .message_bytes = 300,
                                         .arena_bytes = 300,
                                         .block_bytes = 300});
  for (int i = 0; i < 3; ++i) {
    const absl::Status error = queue.Send(std::string(301, 'x'));
    EXPECT_THAT(error.message(), HasSubstr("message of 301 bytes"));
    EXPECT_THAT(error.message(), HasSubstr("message_bytes"));
    EXPECT_FALSE(queue.Send(std::string(300, 'x'), {.priority = 1}).ok());
  }
  EXPECT_TRUE(queue.TrySend(std::string(300, 'y')).ok());
  EXPECT_EQ(*queue.Receive(kPatience), std::string(300, 'y'));
}

TEST(SimpleQueueTest, test_empty) {
  Queue queue = *Queue::CreateAnonymous();
  Child child = Child::Fork([&] {
    const auto put_empty = [&] {
      return queue.Send(queue.ApproximateSize() == 0 ? "True" : "False").ok();
    };
    const bool first = put_empty();
    return first && put_empty() ? 0 : 1;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(queue.ApproximateSize(), 2u);
  EXPECT_EQ(*queue.Receive(kPatience), "True");
  EXPECT_EQ(*queue.Receive(kPatience), "False");
  EXPECT_EQ(queue.ApproximateSize(), 0u);
}

// As test_closed_queue_empty_exceptions.
TEST(SimpleQueueTest, test_empty_exceptions) {
  Queue queue = *Queue::CreateAnonymous();
  ASSERT_TRUE(queue.CloseForSend().ok());
  EXPECT_EQ(queue.ApproximateSize(), 0u);
}

TEST(SimpleQueueTest, test_close) {
  Queue queue = *Queue::CreateAnonymous();
  EXPECT_TRUE(queue.CloseForSend().ok());
  EXPECT_TRUE(queue.CloseForSend().ok()) << "no harm";
}

// Python's close ends the descriptors of both ends. Here there is one for both,
// and it ends with the object.
TEST(SimpleQueueTest, test_closed) {
  std::optional<Queue> queue = *Queue::CreateAnonymous();
  const int fd = queue->fd();
  ASSERT_TRUE(queue->CloseForSend().ok());
  EXPECT_GE(fcntl(fd, F_GETFD), 0) << "what is left can still be received";
  queue.reset();
  EXPECT_EQ(fcntl(fd, F_GETFD), -1);
}

TEST(QueueTest, CloseWakesEveryWaiter) {
  Queue empty = *Queue::CreateAnonymous();
  Queue full = *Queue::CreateAnonymous({.slots = 1});
  // No tick within this test: only the close wakes them.
  QueueTestPeer::SetParkTick(empty, kPatience);
  QueueTestPeer::SetParkTick(full, kPatience);
  ASSERT_TRUE(full.Send("x").ok());
  std::vector<Child> waiters;
  for (int i = 0; i < 3; ++i) {
    waiters.push_back(Child::Fork(
        [&] { return absl::IsOutOfRange(empty.Receive().status()) ? 0 : 1; }));
    waiters.push_back(Child::Fork(
        [&] { return absl::IsFailedPrecondition(full.Send("y")) ? 0 : 1; }));
  }
  for (const Child& waiter : waiters) waiter.AwaitSleep();
  const absl::Time start = absl::Now();
  ASSERT_TRUE(empty.CloseForSend().ok());
  ASSERT_TRUE(full.CloseForSend().ok());
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), 0);
  EXPECT_LT(absl::Now() - start, kPatience) << "a tick, not the close";
  EXPECT_EQ(*full.Receive(), "x");
}

// The same of threads that share one object.
TEST(QueueTest, CloseEndsTheWaitsOfThreads) {
  Queue empty = *Queue::CreateAnonymous();
  Queue full = *Queue::CreateAnonymous({.slots = 1});
  ASSERT_TRUE(full.Send("x").ok());
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      EXPECT_EQ(empty.Receive().status().code(), absl::StatusCode::kOutOfRange);
    });
    threads.emplace_back([&] {
      EXPECT_EQ(full.Send("y").code(), absl::StatusCode::kFailedPrecondition);
    });
  }
  ASSERT_TRUE(empty.CloseForSend().ok());
  ASSERT_TRUE(full.CloseForSend().ok());
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(*full.Receive(), "x");
}

// What a Send that returned OK has sent is received before the end is told.
TEST(QueueTest, NoMessageIsSentAfterTheEnd) {
  for (int round = 0; round < 300; ++round) {
    Queue queue = *Queue::CreateAnonymous({.slots = 4});
    int sent = 0;
    std::thread sender([&] {
      while (queue.Send("x").ok()) ++sent;
    });
    int received = 0;
    std::thread closer([&] { (void)queue.CloseForSend(); });
    while (queue.Receive().ok()) ++received;
    sender.join();
    closer.join();
    ASSERT_EQ(received, sent);
  }
}

TEST(QueueTest, FullPolicyFail) {
  Queue queue =
      *Queue::CreateAnonymous({.slots = 1, .full_policy = FullPolicy::kFail});
  ASSERT_TRUE(queue.Send("x").ok());
  EXPECT_EQ(queue.Send("y").code(), absl::StatusCode::kResourceExhausted);
  // The policy is the queue's, so it holds for whoever attaches.
  Queue other = *Queue::FromFd(Duplicate(queue));
  EXPECT_EQ(other.Send("y").code(), absl::StatusCode::kResourceExhausted);
}

TEST(QueueTest, EveryLengthUpToTheMaximum) {
  Queue queue = *Queue::CreateAnonymous({.slots = 2, .message_bytes = 200});
  EXPECT_EQ(queue.max_message_bytes(), 200u);
  for (size_t length = 0; length <= 200; ++length) {
    const std::string message(length, static_cast<char>('a' + length % 26));
    ASSERT_TRUE(queue.Send(message).ok());
    EXPECT_EQ(*queue.Receive(), message);
  }
  ASSERT_TRUE(queue.Send(absl::Span<const std::byte>()).ok());
  EXPECT_EQ(*queue.ReceiveInto({}), 0u);
  const absl::Status status = queue.Send(std::string(201, 'x'));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("201"));
  EXPECT_THAT(status.message(), HasSubstr("200"));
  EXPECT_THAT(status.message(), HasSubstr("message_bytes"));
  EXPECT_EQ(queue.TrySend(std::string(201, 'x')).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(QueueTest, MessageTooLongForTheBufferIsNotLost) {
  Queue queue = *Queue::CreateAnonymous();
  ASSERT_TRUE(queue.Send("long").ok());
  ASSERT_TRUE(queue.Send("next").ok());
  std::byte buffer[3];
  const absl::Status status =
      queue.ReceiveInto(absl::MakeSpan(buffer)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("4 bytes, buffer of 3"));
  EXPECT_EQ(*queue.Receive(), "long");
  EXPECT_EQ(*queue.Receive(), "next");
}

TEST(QueueTest, CapacityIsRoundedUp) {
  EXPECT_EQ(Queue::CreateAnonymous({.slots = 1})->capacity(), 1u);
  EXPECT_EQ(Queue::CreateAnonymous({.slots = 3})->capacity(), 4u);
  EXPECT_EQ(Queue::CreateAnonymous({.slots = 64})->capacity(), 64u);
}

TEST(QueueTest, OptionsOutOfRange) {
  for (const Options& options :
       {Options{.slots = 0}, Options{.slots = uint64_t{1} << 60},
        Options{.message_bytes = 0}, Options{.message_bytes = ~uint64_t{0}},
        Options{.participants = 0}, Options{.participants = 513}}) {
    EXPECT_EQ(Queue::CreateAnonymous(options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(QueueTest, Stats) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4});
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(queue.Send("x").ok());
    ASSERT_TRUE(queue.Send("x").ok());
    ASSERT_TRUE(queue.Receive().ok());
    if (i > 0) {
      ASSERT_TRUE(queue.Receive().ok());
    }
  }
  const Stats stats = queue.stats();
  EXPECT_EQ(stats.sent, 20u);
  EXPECT_EQ(stats.received, 19u);
  EXPECT_EQ(stats.pending, 1u);
  EXPECT_EQ(stats.redelivered, 0u);
  EXPECT_EQ(stats.skipped, 0u);
  EXPECT_EQ(stats.reaped, 0u);
}

TEST(QueueTest, MovedQueueGoesOn) {
  Queue a = *Queue::CreateAnonymous();
  ASSERT_TRUE(a.Send("x").ok());
  Queue b = std::move(a);
  EXPECT_EQ(*b.Receive(), "x");
  a = std::move(b);
  ASSERT_TRUE(a.Send("y").ok());
  EXPECT_EQ(*a.Receive(), "y");
}

TEST(QueueTest, TwoObjectsOfOneProcessShareTheQueue) {
  Queue a = *Queue::CreateAnonymous({.slots = 2});
  Queue b = *Queue::FromFd(Duplicate(a));
  ASSERT_TRUE(a.Send("x").ok());
  EXPECT_EQ(*b.Receive(), "x");
  EXPECT_EQ(b.stats().received, 1u);
}

TEST(QueueTest, ParticipantsAreLimitedAndReusable) {
  Queue first = *Queue::CreateAnonymous({.participants = 2});
  {
    Queue second = *Queue::FromFd(Duplicate(first));
    EXPECT_EQ(Queue::FromFd(Duplicate(first)).status().code(),
              absl::StatusCode::kResourceExhausted);
  }
  Child child = Child::Fork([&] {
    Queue queue = *Queue::FromFd(Duplicate(first));
    Child::StopSelf();
    return 0;
  });
  child.AwaitStop();
  EXPECT_FALSE(Queue::FromFd(Duplicate(first)).ok());
  child.Kill();
  EXPECT_TRUE(Queue::FromFd(Duplicate(first)).ok());
}

// A ring of one or two slots wraps at every message; with laps of 4 bits, their
// number comes round every 16 times as well.
TEST(QueueTest, LapsComeRound) {
  for (const uint64_t slots : {1, 2, 4}) {
    for (const int lap_bits : {4, 32}) {
      SCOPED_TRACE(absl::StrCat(slots, " slots, ", lap_bits, " bits"));
      Queue queue =
          *QueueTestPeer::CreateWithLapBits({.slots = slots}, lap_bits);
      for (uint64_t i = 0; i < 10'000; ++i) {
        const uint64_t count = i % slots + 1;
        for (uint64_t k = 0; k < count; ++k) {
          ASSERT_TRUE(queue.TrySend(absl::StrCat(i, ".", k)).ok());
        }
        if (count == slots) {
          ASSERT_FALSE(queue.TrySend("no room").ok());
        }
        for (uint64_t k = 0; k < count; ++k) {
          ASSERT_EQ(*queue.TryReceive(), absl::StrCat(i, ".", k));
        }
        ASSERT_EQ(*queue.TryReceive(), std::nullopt);
      }
    }
  }
}

TEST(QueueTest, NotAQueue) {
  EXPECT_FALSE(Queue::FromFd(UniqueFd()).ok());
  EXPECT_EQ(Queue::FromFd(UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC)))
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Queue::FromFd(*CreateMemory("zeros", 8192)).status().code(),
            absl::StatusCode::kInvalidArgument);
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  UniqueFd write_end(pipe_fds[1]);
  EXPECT_FALSE(Queue::FromFd(UniqueFd(pipe_fds[0])).ok());
}

// Every field that the creator writes, changed in every bit.
TEST(QueueTest, DamagedHeaderIsRefused) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4});
  const absl::Span<std::byte> bytes = QueueTestPeer::bytes(queue);
  constexpr size_t kFixed = offsetof(Header, geometry) + sizeof(Geometry);
  // No reason to refuse: a minor version, what is a good value as well, of the
  // longest message in the same stride and of the bits of a lap, and the type,
  // of which only a TypedQueue knows what it should be.
  const auto is_free = [](size_t i) {
    constexpr size_t kGeometry = offsetof(Header, geometry);
    return i / 2 == offsetof(SegmentPrefix, abi_minor) / 2 ||
           (i - kGeometry - offsetof(Geometry, type_id)) < sizeof(uint64_t) ||
           i == kGeometry + offsetof(Geometry, message_bytes) ||
           i == kGeometry + offsetof(Geometry, lap_bits) ||
           i == kGeometry + offsetof(Geometry, full_policy);
  };
  for (size_t i = 0; i < kFixed; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] ^= std::byte{1} << bit;
      absl::StatusOr<Queue> opened = Queue::FromFd(Duplicate(queue));
      if (!is_free(i)) {
        EXPECT_FALSE(opened.ok()) << "byte " << i << " bit " << bit;
        EXPECT_THAT(opened.status().code(),
                    ::testing::AnyOf(absl::StatusCode::kInvalidArgument,
                                     absl::StatusCode::kFailedPrecondition,
                                     absl::StatusCode::kDataLoss));
        EXPECT_THAT(opened.status().message(), HasSubstr("fd"));
      }
      bytes[i] ^= std::byte{1} << bit;
    }
  }
  EXPECT_TRUE(Queue::FromFd(Duplicate(queue)).ok());
}

TEST(QueueTest, FileOfAnotherSizeIsRefused) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4});
  const absl::Span<const std::byte> bytes = QueueTestPeer::bytes(queue);
  for (const size_t size : {size_t{16}, size_t{100}, sizeof(Header),
                            bytes.size() - 1, bytes.size() + 4096}) {
    UniqueFd fd = *CreateMemory("wrong size", size);
    ASSERT_GT(pwrite(fd.get(), bytes.data(), std::min(size, bytes.size()), 0),
              0);
    EXPECT_EQ(Queue::FromFd(std::move(fd)).status().code(),
              absl::StatusCode::kDataLoss)
        << size;
  }
}

TEST(QueueTest, FileThatMayShrinkIsRefused) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4});
  const absl::Span<const std::byte> bytes = QueueTestPeer::bytes(queue);
  UniqueFd fd(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(write(fd.get(), bytes.data(), bytes.size()),
            static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(Queue::FromFd(std::move(fd)).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace ipc::mqueue
