// What Semaphore and Barrier are made of: a state that is changed under a lock
// that outlives its holder, and a way to wait until it has changed.
//
// The state is to be such that each change takes effect by a single store, and
// what else there is can be computed from it: the heir of a dead holder does
// so, and goes on.
#ifndef IPC_SHM_MONITOR_H_
#define IPC_SHM_MONITOR_H_

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/base/participants.h"
#include "ipc/shm/robust_lock.h"
#include "ipc/shm/segment.h"

namespace ipc::shm::internal {

// As it lies in a segment; all bytes zero is free and nobody waits.
struct Monitor {
  // How long one sleeps before it looks again, also for those who died.
  static constexpr absl::Duration kPark = absl::Milliseconds(10);

  RobustLock lock;
  std::atomic<uint32_t> event;    // on which those who wait sleep; only grows
  std::atomic<uint32_t> waiting;  // 1 if somebody may sleep; under the lock
};
static_assert(sizeof(Monitor) == 24);

// Is in the monitor until destroyed, but for the time of Wait. Not to be moved.
class MonitorScope {
 public:
  // `repair` puts the state in order where a holder died. See status().
  template <typename Repair>
  MonitorScope(const Segment& segment, Monitor& monitor, Deadline deadline,
               Repair repair)
      : segment_(segment), monitor_(monitor) {
    if (Enter(deadline)) repair();
  }
  MonitorScope(const MonitorScope&) = delete;
  MonitorScope& operator=(const MonitorScope&) = delete;
  ~MonitorScope() { Leave(); }

  // Whether we are in, or why not: as RobustLock::Acquire.
  const absl::Status& status() const { return status_; }
  Participant self() const { return self_; }

  // Leaves, sleeps until somebody calls Wake, but no longer than kPark and
  // `sleep_until`, and enters again; spurious wake-ups happen. Then status()
  // tells whether it is in again, and not DeadlineExceeded for `enter_until`.
  template <typename Repair>
  void Wait(Deadline sleep_until, Deadline enter_until, Repair repair) {
    Sleep(sleep_until);
    if (Enter(enter_until)) repair();
  }

  // Wakes those who wait.
  void Wake();

 private:
  // Returns whether the state needs repair.
  bool Enter(Deadline deadline);
  void Sleep(Deadline deadline);
  void Leave();

  const Segment& segment_;
  Monitor& monitor_;
  Participant self_ = {};
  absl::Status status_;
};

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_MONITOR_H_
