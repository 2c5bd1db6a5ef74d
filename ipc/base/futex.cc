#include "ipc/base/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ipc {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t) &&
                  std::atomic<uint32_t>::is_always_lock_free,
              "the kernel must see the same 32 bits as std::atomic");

bool FutexWait(const std::atomic<uint32_t>& word, uint32_t expected,
               Deadline deadline) {
  timespec until;
  const timespec* timeout = nullptr;
  if (!deadline.is_infinite()) {
    until = deadline.ToTimespec();
    timeout = &until;
  }
  // FUTEX_WAIT_BITSET, unlike FUTEX_WAIT, takes an absolute CLOCK_MONOTONIC
  // time, so an interrupted wait can be repeated as it is.
  const long result = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, expected,
                              timeout, nullptr, FUTEX_BITSET_MATCH_ANY);
  return result == 0 || errno != ETIMEDOUT;
}

int FutexWake(const std::atomic<uint32_t>& word, int count) {
  const long woken =
      syscall(SYS_futex, &word, FUTEX_WAKE, count, nullptr, nullptr, 0);
  return woken < 0 ? 0 : static_cast<int>(woken);
}

}  // namespace ipc
