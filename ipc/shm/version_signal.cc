#include "ipc/shm/version_signal.h"

#include <climits>

#include "ipc/base/futex.h"
#include "ipc/base/spin_wait.h"

namespace ipc::shm::internal {

void VersionSignal::Wake() {
  // Relaxed: a sleeper that sets the flag after this has loaded event before or
  // after the bump. If before, the kernel does not let it sleep; if after, the
  // word had changed by then, which its check, behind its fence, sees.
  waiting.store(0, std::memory_order_relaxed);
  event.fetch_add(1);
  FutexWake(event, INT_MAX);
}

bool VersionSignal::Park(uint64_t seen, Deadline deadline, bool writable) {
  // Acquire, here and below, pairs with the release in Publish and Exchange.
  if (word.load(std::memory_order_acquire) != seen) return true;
  if (deadline.HasPassed()) return false;
  static SpinHistory history;
  for (SpinWait spin(&history, /*peer_cpu=*/-1); spin.Next();) {
    if (word.load(std::memory_order_acquire) == seen) continue;
    spin.Succeeded();
    return true;
  }

  const uint32_t expected = event.load();
  if (writable) {
    waiting.store(1, std::memory_order_relaxed);
    HeavyFence();
  }
  if (word.load(std::memory_order_acquire) != seen) return true;
  FutexWait(event, expected,
            Deadline::Earlier(deadline, Deadline::After(kPark)));
  return word.load(std::memory_order_acquire) != seen;
}

}  // namespace ipc::shm::internal
