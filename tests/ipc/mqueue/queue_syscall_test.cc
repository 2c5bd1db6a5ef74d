// No system call on a send or a receive while nobody waits: the kernel kills
// the child at the first one. But for the look for the dead at each tick, which
// never comes here.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "tests/ipc/mqueue/queue_test_peer.h"
#include "tests/testing/child.h"

namespace ipc::mqueue {
namespace {

using testing::Child;

bool ForbidSystemCalls() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
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

TEST(QueueSyscallTest, NoneWhileNobodyWaits) {
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
TEST(QueueSyscallTest, NoneForLoans) {
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

// The filter does what this test relies on.
TEST(QueueSyscallTest, FilterKills) {
  Child child = Child::Fork([] {
    if (!ForbidSystemCalls()) return 2;
    return getppid() > 0 ? 0 : 1;
  });
  EXPECT_LT(child.Wait(), 0);
}

}  // namespace
}  // namespace ipc::mqueue
