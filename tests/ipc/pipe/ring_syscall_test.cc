// No system call on a send or a receive while nobody sleeps: the kernel kills
// the child at the first one.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <iterator>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/ring.h"
#include "tests/testing/child.h"

namespace ipc::pipe {
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

TEST(RingSyscallTest, NoneWhileNobodySleeps) {
  Child child = Child::Fork([]() -> int {
    absl::StatusOr<UniqueFd> fd = CreateRing({.capacity_bytes = 4096});
    absl::StatusOr<UniqueFd> same = fd->Duplicate();
    absl::StatusOr<RingSender> sender = RingSender::FromFd(*std::move(fd));
    absl::StatusOr<RingReceiver> receiver =
        RingReceiver::FromFd(*std::move(same));
    const std::string message(100, 'x');
    if (!ForbidSystemCalls()) _exit(2);
    for (int i = 0; i < 10'000; ++i) {
      for (int k = 0; k < 20; ++k) {
        if (!sender->Send(message, absl::Seconds(1)).ok()) _exit(3);
      }
      for (int k = 0; k < 20; ++k) {
        const absl::StatusOr<View> view = receiver->Receive(absl::Seconds(1));
        if (!view.ok() || view->text() != message) _exit(4);
      }
    }
    _exit(0);
  });
  EXPECT_EQ(child.Wait(), 0);
}

}  // namespace
}  // namespace ipc::pipe
