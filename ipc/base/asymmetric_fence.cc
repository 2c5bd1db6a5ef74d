#include "ipc/base/asymmetric_fence.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ipc {
namespace {

bool Membarrier(int command) {
  return syscall(SYS_membarrier, command, 0, 0) == 0;
}

void Register() { Membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED); }

}  // namespace

void EnableLightFence() {
  // The manual page does not say what a child inherits.
  static const int installed =
      (Register(), pthread_atfork(nullptr, nullptr, &Register));
  (void)installed;
}

void HeavyFence() {
  if (Membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED)) return;
  // An RMW is a full fence that ThreadSanitizer knows of, too.
  static std::atomic<int> word;
  word.fetch_add(0);
}

}  // namespace ipc
