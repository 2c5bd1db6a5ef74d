// What Semaphore and Barrier are made of: a state that is changed under a lock
// that outlives its holder, and a way to wait until it has changed.
//
// The state is to be such that each change takes effect by a single store, and
// nothing else is kept: then the heir of a dead holder has nothing to repair.
// Some changes may be made without the lock, by whoever then calls Wake.
#ifndef IPC_SHM_MONITOR_H_
#define IPC_SHM_MONITOR_H_

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/base/participants.h"
#include "ipc/shm/robust_lock.h"
#include "ipc/shm/segment.h"

namespace ipc::shm::internal {

// As it lies in a segment; all bytes zero is free and nobody waits.
struct Monitor {
  // How long one sleeps before it looks again.
  static constexpr absl::Duration kPark = absl::Milliseconds(10);
  // For how long nobody else looks for the dead, which is a system call for
  // each participant. So a death is noticed within 15 ms: one that was too
  // early to look comes again after 10 ms, and if it is too early then, another
  // one has looked since.
  static constexpr uint64_t kProbeNanoseconds = 5'000'000;

  RobustLock lock;
  std::atomic<uint32_t> event;    // on which those who wait sleep; only grows
  std::atomic<uint32_t> waiting;  // 1 if somebody may sleep
  // When somebody looked for the dead, in ns of CLOCK_MONOTONIC; under the
  // lock.
  std::atomic<uint64_t> probed;

  // Wakes those who wait, after a change. Needs no lock.
  void Wake();
};
static_assert(sizeof(Monitor) == 32);

// Is in the monitor until destroyed, but for the time of Wait. Not to be moved.
class MonitorScope {
 public:
  // See status().
  MonitorScope(const Segment& segment, Monitor& monitor, Deadline deadline)
      : segment_(segment), monitor_(monitor) {
    Enter(deadline);
  }
  MonitorScope(const MonitorScope&) = delete;
  MonitorScope& operator=(const MonitorScope&) = delete;
  ~MonitorScope() { Leave(); }

  // Whether we are in, or why not: as RobustLock::Acquire.
  const absl::Status& status() const { return status_; }
  Participant self() const { return self_; }

  // Says that we are about to wait: whoever changes the state after this and
  // calls Wake ends the next Wait, and what was changed before is seen after
  // it. Only to be called if some changes are made without the lock.
  void Announce();

  // Leaves, sleeps until somebody calls Wake, but no longer than kPark and
  // `sleep_until`, and enters again; spurious wake-ups happen. Then status()
  // tells whether it is in again, and not DeadlineExceeded for `enter_until`.
  void Wait(Deadline sleep_until, Deadline enter_until);

  // Whether to look for the dead: not if somebody has within the last
  // kProbeNanoseconds.
  bool IsTimeToProbe();

 private:
  void Enter(Deadline deadline);
  void Sleep(Deadline deadline);
  void Leave();

  const Segment& segment_;
  Monitor& monitor_;
  Participant self_ = {};
  bool announced_ = false;
  uint32_t event_ = 0;  // when announced
  absl::Status status_;
};

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_MONITOR_H_
