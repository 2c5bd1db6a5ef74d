// No system call on a send or a receive while nobody waits: the kernel kills
// the child at the first one. But for the look for the dead at each tick, which
// never comes here.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <new>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/policy.h"
#include "ipc/mqueue/queue.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

// The only sched_yield that is allowed has this argument, which it ignores: it
// is the test's.
constexpr uint32_t kOurs = 0x0415;

void Yield() { syscall(SYS_sched_yield, kOurs); }

bool ForbidSystemCalls() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_yield, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kOurs, 3, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      // AddressSanitizer asks for the stack before an exit.
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sigaltstack, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  const sock_fprog program = {std::size(filter), filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

int SendAndReceive(Queue& queue, int rounds) {
  std::byte buffer[64] = {};
  for (int i = 0; i < rounds; ++i) {
    for (int k = 0; k < 4; ++k) {
      if (!queue.Send(absl::MakeSpan(buffer)).ok()) return 1;
    }
    for (int k = 0; k < 4; ++k) {
      if (!queue.ReceiveInto(absl::MakeSpan(buffer), absl::Seconds(1)).ok()) {
        return 1;
      }
    }
  }
  return 0;
}

TEST(QueueSyscallOfOneTest, NoneWhileNobodyWaits) {
  Queue queue = *Queue::CreateAnonymous({.slots = 4});
  QueueTestPeer::SetParkTick(queue, absl::InfiniteDuration());
  Child child = Child::Fork([&] {
    // The first call in a child attaches.
    if (SendAndReceive(queue, 1) != 0 || !ForbidSystemCalls()) return 2;
    return SendAndReceive(queue, 10'000);
  });
  EXPECT_EQ(child.Wait(), 0);
}

// The same with loans, in the arena, and acknowledged.
TEST(QueueSyscallOfOneTest, NoneForLoans) {
  for (const Delivery delivery : {Delivery::kAutoAck, Delivery::kExplicitAck}) {
    Queue queue = *Queue::CreateAnonymous(
        {.slots = 4, .message_bytes = 10'000, .delivery = delivery});
    QueueTestPeer::SetParkTick(queue, absl::InfiniteDuration());
    const auto lend_and_receive = [&](int rounds) {
      for (int i = 0; i < rounds; ++i) {
        absl::StatusOr<Loan> loan = queue.TryLoan(10'000);
        if (!loan.ok() || !queue.Send(*std::move(loan)).ok()) return 1;
        absl::StatusOr<Message> message = queue.ReceiveMessage();
        if (!message.ok() || !message->Ack().ok()) return 1;
      }
      return 0;
    };
    Child child = Child::Fork([&] {
      if (lend_and_receive(1) != 0 || !ForbidSystemCalls()) return 2;
      return lend_and_receive(10'000);
    });
    EXPECT_EQ(child.Wait(), 0);
  }
}

// How a message goes from one process to the other.
struct Way {
  const char* name;
  Options options;
  size_t bytes;
  bool by_loan;       // lent and sent, received and acknowledged in place
  bool acks = false;  // by TaskDone
};

constexpr int kInARow = 3;

bool SendOne(Queue& queue, const Way& way, int i) {
  const SendOptions options = {
      .priority = static_cast<uint32_t>(i) %
                  static_cast<uint32_t>(way.options.priorities)};
  if (!way.by_loan) {
    std::byte message[10'000] = {};
    return queue.Send(absl::MakeConstSpan(message, way.bytes), options).ok();
  }
  absl::StatusOr<Loan> loan = queue.TryLoan(way.bytes);
  return loan.ok() && queue.Send(*std::move(loan), options).ok();
}

bool ReceiveOne(Queue& queue, const Way& way) {
  if (!way.by_loan) {
    std::byte buffer[10'000];
    absl::StatusOr<size_t> size = queue.ReceiveInto(absl::MakeSpan(buffer));
    return size.ok() && *size == way.bytes &&
           (!way.acks || queue.TaskDone().ok());
  }
  absl::StatusOr<Message> message = queue.ReceiveMessage();
  return message.ok() && message->data().size() == way.bytes &&
         message->Ack().ok();
}

class QueueSyscallTest : public ::testing::TestWithParam<Way> {};

INSTANTIATE_TEST_SUITE_P(
    Ways, QueueSyscallTest,
    ::testing::Values(
        Way{"InSlots", {.slots = 8}, 64, false},
        Way{"OfPriorities", {.slots = 8, .priorities = 3}, 64, false},
        Way{"InTheArena", {.slots = 8, .message_bytes = 10'000}, 10'000, false},
        Way{"ByLoan", {.slots = 8, .message_bytes = 10'000}, 10'000, true},
        Way{"OfPrioritiesByLoan",
            {.slots = 8, .message_bytes = 10'000, .priorities = 3},
            10'000,
            true},
        Way{"Explicit",
            {.slots = 8, .delivery = Delivery::kExplicitAck},
            64,
            false,
            true},
        Way{"ExplicitByLoan",
            {.slots = 8,
             .message_bytes = 10'000,
             .delivery = Delivery::kExplicitAck},
            10'000,
            true}),
    [](const auto& info) { return info.param.name; });

// The same between two processes, which take turns by a word of their own, so
// that there is always a message to receive, and room for one.
TEST_P(QueueSyscallTest, NoneBetweenTwoProcesses) {
  constexpr uint32_t kRounds = 500, kFailed = ~0u;
  const Way& way = GetParam();
  Queue queue = *Queue::CreateAnonymous(way.options);
  QueueTestPeer::SetParkTick(queue, absl::Hours(1));
  void* memory =
      mmap(nullptr, sizeof(std::atomic<uint32_t>), PROT_READ | PROT_WRITE,
           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* const turn = new (memory) std::atomic<uint32_t>(0);
  const auto take_turns = [&](uint32_t first, auto one) {
    for (uint32_t round = 0; round < kRounds; ++round) {
      uint32_t seen;
      while ((seen = turn->load()) != 2 * round + first) {
        if (seen == kFailed) return 3;
        Yield();
      }
      for (int i = 0; i < kInARow; ++i) {
        if (!one(i)) {
          turn->store(kFailed);
          return 1;
        }
      }
      turn->store(2 * round + first + 1);
      // The first call in a child attaches.
      if (round == 0 && !ForbidSystemCalls()) return 2;
    }
    return 0;
  };
  Child sender = Child::Fork([&] {
    return take_turns(0, [&](int i) { return SendOne(queue, way, i); });
  });
  Child receiver = Child::Fork([&] {
    return take_turns(1, [&](int) { return ReceiveOne(queue, way); });
  });
  ASSERT_EQ(sender.Wait(), 0);
  ASSERT_EQ(receiver.Wait(), 0);
  EXPECT_EQ(queue.stats().received, kRounds * kInARow);
  munmap(memory, sizeof(std::atomic<uint32_t>));
}

// The filter does what this test relies on.
TEST(QueueSyscallOfOneTest, FilterKills) {
  Child child = Child::Fork([] {
    if (!ForbidSystemCalls()) return 2;
    return getppid() > 0 ? 0 : 1;
  });
  EXPECT_LT(child.Wait(), 0);
}

}  // namespace
}  // namespace ipc::mqueue
