#include "ipc/shm/version_signal.h"

#include <climits>

#include "ipc/base/futex.h"
#include "ipc/base/spin_wait.h"

namespace ipc::shm::internal {

void VersionSignal::Publish(uint64_t next) {
  version.store(next);
  WakeIfWaiting();
}

void VersionSignal::Bump() {
  version.fetch_add(1);
  WakeIfWaiting();
}

void VersionSignal::Advance(uint64_t seen) {
  if (version.compare_exchange_strong(seen, seen + 1)) WakeIfWaiting();
}

void VersionSignal::WakeIfWaiting() {
  if (waiting.load() == 0) return;
  waiting.store(0);
  event.fetch_add(1);
  FutexWake(event, INT_MAX);
}

bool VersionSignal::Park(uint64_t seen, Deadline deadline, bool writable) {
  // Acquire pairs with the seq_cst stores in Publish and Bump.
  if (version.load(std::memory_order_acquire) != seen) return true;
  if (deadline.HasPassed()) return false;
  static SpinHistory history;
  for (SpinWait spin(&history, /*peer_cpu=*/-1); spin.Next();) {
    if (version.load(std::memory_order_acquire) == seen) continue;
    spin.Succeeded();
    return true;
  }

  const uint32_t expected = event.load();
  if (writable) waiting.store(1);
  if (version.load() != seen) return true;
  FutexWait(event, expected,
            Deadline::Earlier(deadline, Deadline::After(kPark)));
  return version.load() != seen;
}

}  // namespace ipc::shm::internal
