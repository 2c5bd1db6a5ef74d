// A Doorbell in shared memory wakes those who wait for something to happen, and
// costs one load when nobody does.
//
//   // The side that waits:                 // The side that makes it happen:
//   const uint32_t ticket = bell.Announce();
//   if (!happened()) {                      happen();
//     bell.Sleep(ticket, deadline);         bell.Ring();
//   }
//
// Either happened() sees what was done, or Ring() sees the announcement: that
// takes one total order of four operations, so `happen` and `happened` must be
// a seq_cst store and load (or CAS), as the ones in here are.
//
// `waiting` is a flag, not a count: a count leaks when a waiter is killed. So
// Ring clears it although others may still sleep, and wakes one of them. That
// one has to pass it on: before it looks again it announces itself again, and
// if it then need not sleep, the next Ring wakes the next one. A waiter killed
// in between breaks that chain; so every Sleep is to be capped. All of this is
// modelled in tests/ipc/mqueue/model/doorbell.pml.
#ifndef IPC_MQUEUE_DOORBELL_H_
#define IPC_MQUEUE_DOORBELL_H_

#include <atomic>
#include <climits>
#include <cstdint>

#include "ipc/base/deadline.h"
#include "ipc/base/futex.h"

namespace ipc::mqueue {

class Doorbell {
 public:
  // Says that somebody is about to sleep. Look again, then pass the result on.
  uint32_t Announce() {
    const uint32_t ticket = event_.load();
    waiting_.store(1);
    return ticket;
  }
  // Sleeps until a Ring after the Announce, or the deadline. False only if the
  // deadline passed; true may be spurious.
  bool Sleep(uint32_t ticket, Deadline deadline) const {
    return FutexWait(event_, ticket, deadline);
  }

  // Wakes one, or as many as may have use for what happened.
  void Ring(int count = 1) {
    if (IsAnnounced()) Wake(count);
  }
  // Whether somebody may sleep.
  bool IsAnnounced() const { return waiting_.load() != 0; }
  // For what concerns every waiter. A system call in any case: while one wakes
  // up, the flag is clear and others still sleep.
  void RingAll() { Wake(INT_MAX); }

 private:
  void Wake(int count) {
    waiting_.store(0);
    event_.fetch_add(1);
    FutexWake(event_, count);
  }

  std::atomic<uint32_t> event_;    // the futex: raised by each wake-up
  std::atomic<uint32_t> waiting_;  // 1: perhaps somebody sleeps
};
static_assert(sizeof(Doorbell) == 8);

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_DOORBELL_H_
