#include "ipc/shm/monitor.h"

#include <climits>

#include "absl/status/statusor.h"
#include "ipc/base/futex.h"
#include "ipc/base/spin_wait.h"

namespace ipc::shm::internal {

bool MonitorScope::Enter(Deadline deadline) {
  const absl::StatusOr<Participant> self = segment_.Self();
  if (!self.ok()) {
    status_ = self.status();
    return false;
  }
  self_ = *self;
  if (monitor_.lock.TryAcquire(self_)) return false;
  const absl::StatusOr<bool> dirty =
      monitor_.lock.Acquire(segment_, self_, deadline);
  status_ = dirty.status();
  return dirty.ok() && *dirty;
}

void MonitorScope::Leave() {
  if (!status_.ok() || monitor_.lock.TryRelease(self_)) return;
  monitor_.lock.Release(segment_, self_, /*dirty=*/false);
}

void MonitorScope::Sleep(Deadline deadline) {
  // Relaxed: both are changed under the lock, which we have, and the kernel
  // compares event once more.
  const uint32_t event = monitor_.event.load(std::memory_order_relaxed);
  monitor_.waiting.store(1, std::memory_order_relaxed);
  Leave();
  static SpinHistory history;
  SpinWait spin(&history, /*peer_cpu=*/-1);
  bool changed = false;
  while (!changed && spin.Next()) {
    changed = monitor_.event.load(std::memory_order_relaxed) != event;
  }
  if (changed) {
    spin.Succeeded();
  } else {
    FutexWait(monitor_.event, event,
              Deadline::Earlier(deadline, Deadline::After(Monitor::kPark)));
  }
}

void MonitorScope::Wake() {
  // Relaxed: under the lock.
  if (monitor_.waiting.load(std::memory_order_relaxed) == 0) return;
  monitor_.waiting.store(0, std::memory_order_relaxed);
  monitor_.event.store(monitor_.event.load(std::memory_order_relaxed) + 1,
                       std::memory_order_relaxed);
  // One who is killed before this leaves them to their next look.
  FutexWake(monitor_.event, INT_MAX);
}

}  // namespace ipc::shm::internal
