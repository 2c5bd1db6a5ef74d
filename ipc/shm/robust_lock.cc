#include "ipc/shm/robust_lock.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "ipc/base/futex.h"
#include "ipc/base/spin_wait.h"

namespace ipc::shm::internal {
namespace {

constexpr uint64_t kIndex = RobustLock::kWanted - 1;
static_assert(Segment::kMaxParticipants < kIndex);

constexpr absl::Duration kPark = absl::Milliseconds(10);

// REQUIRES: `word` is owned.
constexpr Participant OwnerOf(uint64_t word) {
  // Index 0 in an owned word is garbage; it becomes an index out of range,
  // which nobody has, so that the word counts as a dead one's.
  return {static_cast<uint32_t>((word & kIndex) - 1),
          static_cast<uint32_t>(word >> 32)};
}

// The half with the index and the bits, on which the kernel waits. An owner
// that comes back under another epoch looks the same there: a park too many,
// which the next tick ends.
const std::atomic<uint32_t>& LowerHalf(const std::atomic<uint64_t>& word) {
  static_assert(std::endian::native == std::endian::little);
  return reinterpret_cast<const std::atomic<uint32_t>&>(word);
}

// Looks at a lock that is held before asking for it, and so for how long at
// most its holder may go on locking it anew.
constexpr int kLooksBeforeAsking = 2;
// Longer than it takes for a cache line to come and go.
constexpr int kRoundsForOthers = 64;
// How often one whose time is over tries to take a lock that it sees free, or a
// dead one's, and finds changed again.
constexpr int kLateRounds = 64;

absl::Status Restless(const Segment& segment) {
  return absl::DeadlineExceededError(
      absl::StrCat("locking in shm segment, fd ", segment.fd(),
                   ": others take the lock all the time; wait longer"));
}

}  // namespace

void RobustLock::Ask(Wait* wait) {
  // Relaxed: a hint. Not by a CAS, which would hardly ever meet the word as it
  // was.
  wait->seen = word.fetch_or(kWanted, std::memory_order_relaxed) | kWanted;
  wait->has_asked = true;
}

void RobustLock::SpinWhileOwned(Wait* wait) {
  static SpinHistory history;
  SpinWait spin(&history, holder_cpu.load(std::memory_order_relaxed) - 1);
  for (int looks = 1; (wait->seen & kOwner) != 0 && spin.Next(); ++looks) {
    if (looks == kLooksBeforeAsking) {
      Ask(wait);
    } else {
      wait->seen = word.load(std::memory_order_relaxed);
    }
  }
  if ((wait->seen & kOwner) == 0) spin.Succeeded();
}

void RobustLock::LetOthersTakeIt() const {
  for (int i = 0; i < kRoundsForOthers; ++i) {
    const uint64_t seen = word.load(std::memory_order_relaxed);
    if ((seen & kOwner) != 0 || (seen & kWanted) == 0) return;
    Pause();
  }
}

absl::StatusOr<bool> RobustLock::Acquire(const Segment& segment,
                                         Participant self, Deadline deadline) {
  // Relaxed, here and below: the CAS decides and orders.
  Wait wait = {.seen = word.load(std::memory_order_relaxed)};
  for (int late = 0;;) {
    if (absl::Status status = AwaitRelease(segment, deadline, &wait);
        !status.ok()) {
      return status;
    }
    if (!wait.died && !wait.has_asked && (wait.seen & kWanted) != 0) {
      LetOthersTakeIt();
      wait.has_asked = true;  // once
      wait.seen = word.load(std::memory_order_relaxed);
      continue;
    }
    const uint64_t kept = (wait.seen & (kDirty | kWaiters)) | wait.parked |
                          (wait.died ? kDirty : 0);
    // Acquire, as part of seq_cst (see TryAcquire), pairs with the release in
    // TryRelease and Release. What a dead one wrote is visible, too: it ended
    // before the kernel, whom we asked after that, dropped its file lock.
    if (word.compare_exchange_weak(wait.seen, Pack(self) | kept,
                                   std::memory_order_seq_cst,
                                   std::memory_order_relaxed)) {
      NoteCpu();
      return (kept & kDirty) != 0;
    }
    if (deadline.HasPassed() && ++late > kLateRounds) return Restless(segment);
  }
}

absl::Status RobustLock::AwaitFree(const Segment& segment, Deadline deadline) {
  Wait wait = {};
  Ask(&wait);
  for (int late = 0;;) {
    if (absl::Status status = AwaitRelease(segment, deadline, &wait);
        !status.ok()) {
      return status;
    }
    if (!wait.died) return absl::OkStatus();
    // Relaxed: whoever goes on looks at the word once more, and others may
    // still sleep there, whom the bit keeps in mind.
    if (word.compare_exchange_strong(wait.seen, kDirty | (wait.seen & kWaiters),
                                     std::memory_order_relaxed)) {
      return absl::OkStatus();
    }
    if (deadline.HasPassed() && ++late > kLateRounds) return Restless(segment);
  }
}

absl::Status RobustLock::AwaitRelease(const Segment& segment, Deadline deadline,
                                      Wait* wait) {
  wait->died = false;
  while (true) {
    if ((wait->seen & kOwner) == 0) return absl::OkStatus();
    if (!deadline.HasPassed()) {
      SpinWhileOwned(wait);
      if ((wait->seen & kOwner) == 0) return absl::OkStatus();
    }
    const Participant owner = OwnerOf(wait->seen);
    wait->died = segment.IsDead(owner);
    if (wait->died) return absl::OkStatus();
    if (deadline.HasPassed()) {
      return absl::DeadlineExceededError(absl::StrCat(
          "locking in shm segment, fd ", segment.fd(), ": participant ",
          owner.index, " (epoch ", owner.epoch,
          ") is alive and keeps the lock; wait longer or look at it"));
    }
    // Relaxed: the kernel compares again, and the bit carries no data.
    if ((wait->seen & kWaiters) == 0 &&
        !word.compare_exchange_strong(wait->seen, wait->seen | kWaiters,
                                      std::memory_order_relaxed)) {
      continue;
    }
    FutexWait(LowerHalf(word), static_cast<uint32_t>(wait->seen | kWaiters),
              Deadline::Earlier(deadline, Deadline::After(kPark)));
    wait->parked = kWaiters;
    wait->seen = word.load(std::memory_order_relaxed);
  }
}

bool RobustLock::Release(const Segment& segment, Participant owner, bool dirty,
                         Wake wake) {
  uint64_t seen = word.load(std::memory_order_relaxed);
  do {
    if ((seen & kOwner) != Pack(owner)) {
      // Taken away while we live: the others may hold us for dead.
      segment.RenewSelfIfLost().IgnoreError();
      return false;
    }
    // Release pairs with the acquire in TryAcquire and Acquire.
  } while (!word.compare_exchange_weak(
      seen, (dirty ? kDirty : 0) | (seen & kWanted), std::memory_order_release,
      std::memory_order_relaxed));
  if ((seen & kWaiters) != 0) {
    FutexWake(LowerHalf(word), static_cast<int>(wake));
  }
  if ((seen & kWanted) != 0) LetOthersTakeIt();
  return true;
}

absl::StatusOr<RobustLockHold> RobustLockHold::Acquire(const Segment& segment,
                                                       RobustLock& lock,
                                                       absl::Duration timeout) {
  const absl::StatusOr<Participant> self = segment.Self();
  if (!self.ok()) return self.status();
  if (lock.TryAcquire(*self))
    return RobustLockHold(segment, lock, *self, false);
  const absl::StatusOr<bool> dirty =
      lock.Acquire(segment, *self, Deadline::After(timeout));
  if (!dirty.ok()) return dirty.status();
  return RobustLockHold(segment, lock, *self, *dirty);
}

bool RobustLockHold::IsHeld() const {
  return IsOurs() && lock_->IsHeldBy(owner_);
}

void RobustLockHold::MarkConsistent() {
  if (!dirty_ || !IsHeld()) return;
  dirty_ = false;
  lock_->MarkClean();
}

bool RobustLockHold::Release() {
  const bool is_ours = IsOurs();
  RobustLock* const lock = std::exchange(lock_, nullptr);
  return is_ours && lock->Release(segment_, owner_, dirty_);
}

}  // namespace ipc::shm::internal
