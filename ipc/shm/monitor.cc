#include "ipc/shm/monitor.h"

#include <time.h>

#include <climits>

#include "absl/status/statusor.h"
#include "ipc/base/futex.h"
#include "ipc/base/spin_wait.h"

namespace ipc::shm::internal {

void Monitor::Wake() {
  // The flag is set before a sleeper looks at the state for the last time, and
  // asked for after the change: one of the two sees the other.
  if (waiting.load() == 0) return;
  // A sleeper that sets the flag after this has loaded event before or after
  // the bump. If before, the kernel does not let it sleep; if after, it sees
  // the change. Relaxed: ordered by the bump.
  waiting.store(0, std::memory_order_relaxed);
  event.fetch_add(1);
  // One who is killed before this leaves them to their next look.
  FutexWake(event, INT_MAX);
}

void MonitorScope::Enter(Deadline deadline) {
  const absl::StatusOr<Participant> self = segment_.Self();
  if (!self.ok()) {
    status_ = self.status();
    return;
  }
  self_ = *self;
  if (monitor_.lock.TryAcquire(self_)) return;
  status_ = monitor_.lock.Acquire(segment_, self_, deadline).status();
}

void MonitorScope::Leave() {
  if (!status_.ok() || monitor_.lock.TryRelease(self_)) return;
  monitor_.lock.Release(segment_, self_, /*dirty=*/false);
}

void MonitorScope::Announce() {
  event_ = monitor_.event.load();
  monitor_.waiting.exchange(1);
  announced_ = true;
}

void MonitorScope::Wait(Deadline sleep_until, Deadline enter_until) {
  if (!announced_) Announce();
  announced_ = false;
  Sleep(sleep_until);
  Enter(enter_until);
}

void MonitorScope::Sleep(Deadline deadline) {
  Leave();
  static SpinHistory history;
  SpinWait spin(&history, /*peer_cpu=*/-1);
  bool changed = false;
  while (!changed && spin.Next()) {
    // Relaxed: what has changed is looked at under the lock.
    changed = monitor_.event.load(std::memory_order_relaxed) != event_;
  }
  if (changed) {
    spin.Succeeded();
  } else {
    FutexWait(monitor_.event, event_,
              Deadline::Earlier(deadline, Deadline::After(Monitor::kPark)));
  }
}

bool MonitorScope::IsTimeToProbe() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  const uint64_t now = static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 +
                       static_cast<uint64_t>(time.tv_nsec);
  // Relaxed: under the lock. Unsigned: a peer may have written anything, and
  // what is not in the recent past counts as long ago.
  const uint64_t probed = monitor_.probed.load(std::memory_order_relaxed);
  if (now - probed < Monitor::kProbeNanoseconds) return false;
  monitor_.probed.store(now, std::memory_order_relaxed);
  return true;
}

}  // namespace ipc::shm::internal
