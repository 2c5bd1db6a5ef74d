// A lock in shared memory whose holder may be killed at any instruction.
//
//    63          32  31      30      29          0
//   +--------------+-------+-------+--------------+
//   | owner epoch  |waiters| dirty | owner index+1|   all zero: free, clean
//   +--------------+-------+-------+--------------+
//
//   free        -CAS->  mine            dirty stays as it is
//   mine        -CAS->  free            dirty only if not MarkConsistent
//   of the dead -CAS->  mine | dirty    whoever finds it so; nothing to repair
//
// Owners are Participants of the Segment, that is, processes: a thread that
// ends without unlocking is not noticed. A holder that is stopped or slow keeps
// the lock. Not recursive, not fair.
//
// Waiting: spin a little, ask the kernel whether the owner lives, set `waiters`
// and park on the lower half for 10 ms at most, then again. So a wake-up that
// died with its waker costs 10 ms. The bit is never lost while somebody waits:
// who has parked takes the lock with the bit set, and the heir of a dead owner
// keeps it.
//
// Nobody parks, no system call: uncontended, one CAS each to take and release.
//
// Fork: a child does not hold what its parent holds; a Hold that it inherits
// does nothing there when destroyed.
#ifndef IPC_SHM_ROBUST_LOCK_H_
#define IPC_SHM_ROBUST_LOCK_H_

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/base/participants.h"
#include "ipc/shm/segment.h"

namespace ipc::shm::internal {

using RobustLockWord = std::atomic<uint64_t>;

// Holds the lock from Acquire to Release or destruction. Move-only. Keeps the
// segment mapped.
class RobustLockHold {
 public:
  // DeadlineExceeded if a living owner keeps the lock for that long;
  // PermissionDenied if the segment is mapped for reading. `word` lies in it.
  static absl::StatusOr<RobustLockHold> Acquire(const Segment& segment,
                                                RobustLockWord& word,
                                                absl::Duration timeout);

  RobustLockHold(RobustLockHold&& other) noexcept
      : segment_(std::move(other.segment_)),
        word_(std::exchange(other.word_, nullptr)),
        owner_(other.owner_),
        dirty_(other.dirty_) {}
  RobustLockHold& operator=(RobustLockHold&& other) = delete;
  ~RobustLockHold() { Release(); }

  // Whether an owner died in the lock and nobody has called MarkConsistent
  // since.
  bool previous_owner_died() const { return dirty_; }
  // Says that what the lock guards is in order again.
  void MarkConsistent() { dirty_ = false; }

  // Whether an owner died in the lock and the one after it gave it back, or has
  // it still, without MarkConsistent.
  static bool IsMarkedDirty(const RobustLockWord& word);

  // Whether this process holds the lock: not after a move, Release or fork.
  bool IsHeld() const;
  // Returns whether the lock was ours to release; if not, and it was not
  // released before, this is a forked child or a peer has scribbled over it.
  bool Release();

 private:
  // Whether this process took the lock, be it taken away since.
  bool IsOurs() const;
  static absl::StatusOr<RobustLockHold> AcquireContended(const Segment& segment,
                                                         RobustLockWord& word,
                                                         Participant self,
                                                         Deadline deadline);

  RobustLockHold(const Segment& segment, RobustLockWord& word,
                 Participant owner, bool dirty)
      : segment_(segment), word_(&word), owner_(owner), dirty_(dirty) {}

  Segment segment_;
  RobustLockWord* word_;
  Participant owner_;
  bool dirty_;
};

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_ROBUST_LOCK_H_
