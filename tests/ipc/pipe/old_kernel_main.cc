// main of tests that are to run as on an older kernel, which has no
// RWF_NOSIGNAL (before Linux 6.18) or, with the argument --without_nowait, no
// RWF_NOWAIT for pipes either (before 6.5): a seccomp filter answers EOPNOTSUPP
// in its place.
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "gtest/gtest.h"

namespace {

constexpr uint32_t kRwfNosignal = 0x100;

bool RefuseFlags(uint32_t flags) {
  // Its low half; all our machines are little-endian.
  constexpr uint32_t kFlagsOffset = offsetof(seccomp_data, args) + 5 * 8;
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_preadv2, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pwritev2, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kFlagsOffset),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, flags, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program = {.len = std::size(filter), .filter = filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const bool without_nowait =
      std::find(argv, argv + argc, std::string("--without_nowait")) !=
      argv + argc;
  if (!RefuseFlags(without_nowait ? kRwfNosignal | RWF_NOWAIT : kRwfNosignal)) {
    perror("installing a seccomp filter");
    return 1;
  }
  return RUN_ALL_TESTS();
}
