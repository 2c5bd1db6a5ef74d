#include "ipc/shm/spin.h"

#include <unistd.h>

namespace ipc::shm::internal {
namespace {

// About as long as a wake-up takes.
constexpr int kSpins = 200;

int SpinLimit() {
  static const int limit = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? kSpins : 0;
  return limit;
}

}  // namespace

bool Spinner::Spin() {
  if (count_ >= SpinLimit()) return false;
  ++count_;
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
  return true;
}

}  // namespace ipc::shm::internal
