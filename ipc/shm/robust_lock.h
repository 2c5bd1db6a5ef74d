// A lock in shared memory whose holder may be killed at any instruction.
//
//    63          32  31      30     29     28         0
//   +--------------+-------+-------+------+------------+
//   | owner epoch  |waiters| dirty |wanted| owner      |   all zero:
//   |              |       |       |      | index + 1  |   free, clean
//   +--------------+-------+-------+------+------------+
//
//   free        -CAS->  mine            dirty stays as it is
//   mine        -CAS->  free            dirty as the holder says
//   mine        -AND->  mine            no longer dirty, if the holder says so
//   of the dead -CAS->  mine | dirty    whoever finds it so; nothing to repair
//   of the dead -CAS->  free | dirty    by who only waits for it to be free
//
// Owners are Participants of the Segment, that is, processes: a thread that
// ends without unlocking is not noticed. A holder that is stopped or slow keeps
// the lock. Not recursive, not fair.
//
// Waiting: spin a little, ask the kernel whether the owner lives, set `waiters`
// and park on the lower half for 10 ms at most, then again. So a wake-up that
// died with its waker costs 10 ms. The bit is not lost while somebody waits:
// who has parked takes the lock with the bit set, and the heir of a dead owner
// keeps it. Only one that is woken and then gives up takes it along, which
// costs another one 10 ms, too. tests/ipc/shm/model checks that.
//
// A second word, `holder_cpu`, is a hint for those who wait, who do not spin on
// the CPU that the holder needs.
//
// `wanted` is a hint, too: somebody has been polling in vain for a while. Who
// gives the lock back then waits a moment for it to be taken, and so does who
// comes later; otherwise one that locks and unlocks all the time, with the
// cache line at hand, leaves others no chance.
//
// Nobody parks, no system call: uncontended, one CAS each to take and release.
#ifndef IPC_SHM_ROBUST_LOCK_H_
#define IPC_SHM_ROBUST_LOCK_H_

#include <atomic>
#include <climits>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/current_cpu.h"
#include "ipc/base/deadline.h"
#include "ipc/base/participants.h"
#include "ipc/shm/segment.h"

namespace ipc::shm::internal {

// As it lies in the segment that is passed to its members.
struct RobustLock {
  // How many of those who wait are woken by a release. One is enough for those
  // who then take the lock: each wakes the next.
  enum class Wake : int { kOne = 1, kAll = INT_MAX };

  static constexpr uint64_t kWaiters = uint64_t{1} << 31;
  static constexpr uint64_t kDirty = uint64_t{1} << 30;
  static constexpr uint64_t kWanted = uint64_t{1} << 29;
  static constexpr uint64_t kOwner = ~(kWaiters | kDirty | kWanted);

  std::atomic<uint64_t> word;
  // Where it was last taken from another, plus one; 0 before. Only a hint.
  std::atomic<int32_t> holder_cpu;
  uint32_t unused;

  // What the word of a lock is whose owner this is.
  static constexpr uint64_t Pack(Participant owner) {
    return uint64_t{owner.epoch} << 32 | (uint64_t{owner.index} + 1);
  }

  // Takes it if it is free and clean and nobody waits for it.
  bool TryAcquire(Participant self) {
    // Nobody contends: no need to look at the clock. Acquire, as part of
    // seq_cst, pairs with the release in TryRelease and Release; seq_cst is for
    // SharedMutex, whose writer then looks for readers, which look for it. On
    // x86-64 it is the same instruction.
    uint64_t free = 0;
    return word.compare_exchange_strong(
        free, Pack(self), std::memory_order_seq_cst, std::memory_order_relaxed);
  }

  // Takes it, and returns whether it is dirty: whether its owner died, or left
  // it so. DeadlineExceeded if a living owner keeps it for that long. Spins and
  // sleeps.
  absl::StatusOr<bool> Acquire(const Segment& segment, Participant self,
                               Deadline deadline);

  // Waits until nobody owns it, without taking it; a dead owner is expelled.
  // The same errors. Asks for the lock at once: others wait a moment with
  // taking it, until EndWait.
  absl::Status AwaitFree(const Segment& segment, Deadline deadline);
  void EndWait() {
    // Relaxed: a hint.
    if ((word.load(std::memory_order_relaxed) & kWanted) != 0) {
      word.fetch_and(~kWanted, std::memory_order_relaxed);
    }
  }

  // Gives it back if it is clean and nobody waits for it.
  bool TryRelease(Participant owner) {
    // Release pairs with the acquire in TryAcquire and Acquire.
    uint64_t mine = Pack(owner);
    return word.compare_exchange_strong(mine, 0, std::memory_order_release,
                                        std::memory_order_relaxed);
  }

  // Gives it back, as dirty or clean, and wakes. False if `owner`, this process
  // that is, does not hold it: then nothing changes.
  bool Release(const Segment& segment, Participant owner, bool dirty,
               Wake wake = Wake::kOne);

  // What it guards is in order again, though an owner has died. REQUIRES: it is
  // held.
  void MarkClean() {
    // Relaxed: what others may do now they learn by the release.
    word.fetch_and(~kDirty, std::memory_order_relaxed);
  }

  bool IsHeldBy(Participant owner) const {
    // Relaxed: if it is ours, we wrote it.
    return (word.load(std::memory_order_relaxed) & kOwner) == Pack(owner);
  }
  // Whether an owner died in it, and it was not given back clean since.
  bool IsDirty() const {
    // Relaxed: asked by the holder, who has synchronised, or for a message.
    return (word.load(std::memory_order_relaxed) & kDirty) != 0;
  }

 private:
  void NoteCpu() {
    // Relaxed, and not even stored if it is so already: nothing depends on it.
    const int32_t cpu = CurrentCpu() + 1;
    if (holder_cpu.load(std::memory_order_relaxed) != cpu) {
      holder_cpu.store(cpu, std::memory_order_relaxed);
    }
  }
  // What one who waits knows.
  struct Wait {
    uint64_t seen;           // the word, when looked at last
    uint64_t parked = 0;     // kWaiters once we have slept
    bool has_asked = false;  // it is we who want it
    bool died = false;       // the owner that is seen
  };
  void Ask(Wait* wait);
  void SpinWhileOwned(Wait* wait);
  void LetOthersTakeIt() const;
  // Until nobody owns it, or one who is dead.
  absl::Status AwaitRelease(const Segment& segment, Deadline deadline,
                            Wait* wait);
};
static_assert(sizeof(RobustLock) == 16);

// Holds a lock from Acquire to Release or destruction. Move-only. Keeps the
// segment mapped.
//
// Fork: a child does not hold what its parent holds; a Hold that it inherits
// does nothing there when destroyed.
class RobustLockHold {
 public:
  // Errors as RobustLock::Acquire; PermissionDenied if the segment is mapped
  // for reading. `lock` lies in it.
  static absl::StatusOr<RobustLockHold> Acquire(const Segment& segment,
                                                RobustLock& lock,
                                                absl::Duration timeout);

  RobustLockHold(RobustLockHold&& other) noexcept
      : segment_(std::move(other.segment_)),
        lock_(std::exchange(other.lock_, nullptr)),
        owner_(other.owner_),
        dirty_(other.dirty_) {}
  RobustLockHold& operator=(RobustLockHold&& other) = delete;
  ~RobustLockHold() { Release(); }

  // Whether an owner died in the lock and nobody has called MarkConsistent
  // since.
  bool previous_owner_died() const { return dirty_; }
  // Says that what the lock guards is in order again.
  void MarkConsistent();

  // Whether this process holds the lock: not after a move, Release or fork.
  bool IsHeld() const;
  // Returns whether the lock was ours to release; if not, and it was not
  // released before, this is a forked child or a peer has scribbled over it.
  bool Release();

 private:
  // Whether this process took the lock, be it taken away since.
  bool IsOurs() const { return lock_ != nullptr && segment_.IsSelf(owner_); }

  RobustLockHold(const Segment& segment, RobustLock& lock, Participant owner,
                 bool dirty)
      : segment_(segment), lock_(&lock), owner_(owner), dirty_(dirty) {}

  Segment segment_;
  RobustLock* lock_;
  Participant owner_;
  bool dirty_;
};

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_ROBUST_LOCK_H_
