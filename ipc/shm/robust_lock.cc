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

// Looks at a lock that is held before asking for it, and so for how long at most
// its holder may go on locking it anew.
constexpr int kLooksBeforeWanted = 8;
// Longer than it takes for a cache line to come and go.
constexpr int kRoundsForOthers = 64;

}  // namespace

// Polls for a while, until nobody owns it; returns what the word was last.
uint64_t RobustLock::SpinWhileOwned(uint64_t seen) {
  static SpinHistory history;
  SpinWait spin(&history, /*peer_cpu=*/-1);
  for (int looks = 0; (seen & kOwner) != 0 && spin.Next(); ++looks) {
    seen = word.load(std::memory_order_relaxed);
    if (looks == kLooksBeforeWanted && (seen & kOwner) != 0) {
      // Relaxed: a hint. Should it fail, somebody else was busy, for one.
      if (word.compare_exchange_strong(seen, seen | kWanted,
                                       std::memory_order_relaxed)) {
        seen |= kWanted;
      }
    }
  }
  if ((seen & kOwner) == 0) spin.Succeeded();
  return seen;
}

void RobustLock::LetOthersTakeIt() const {
  for (int i = 0; i < kRoundsForOthers; ++i) {
    if ((word.load(std::memory_order_relaxed) & kOwner) != 0) return;
    Pause();
  }
}

absl::StatusOr<bool> RobustLock::Acquire(const Segment& segment,
                                         Participant self, Deadline deadline) {
  uint64_t parked = 0;
  // Relaxed, here and below: the CAS decides and orders.
  uint64_t seen = word.load(std::memory_order_relaxed);
  while (true) {
    bool died = false;
    if (absl::Status status =
            AwaitRelease(segment, deadline, &seen, &parked, &died);
        !status.ok()) {
      return status;
    }
    const uint64_t kept = (seen & (kDirty | kWaiters)) | parked;
    // Acquire pairs with the release in TryRelease and Release. What a dead one
    // wrote is visible, too: it ended before the kernel, whom we asked after
    // that, dropped its file lock.
    if (word.compare_exchange_weak(
            seen, Pack(self) | kept | (died ? kDirty : 0),
            std::memory_order_acquire, std::memory_order_relaxed)) {
      return died || (kept & kDirty) != 0;
    }
  }
}

absl::Status RobustLock::AwaitFree(const Segment& segment, Deadline deadline) {
  uint64_t parked = 0;
  uint64_t seen = word.load(std::memory_order_relaxed);
  while (true) {
    bool died = false;
    if (absl::Status status =
            AwaitRelease(segment, deadline, &seen, &parked, &died);
        !status.ok()) {
      return status;
    }
    if (!died) return absl::OkStatus();
    // Relaxed: whoever goes on looks at the word once more, and others may
    // still sleep there, whom the bit keeps in mind.
    if (word.compare_exchange_strong(seen, kDirty | (seen & kWaiters),
                                     std::memory_order_relaxed)) {
      return absl::OkStatus();
    }
  }
}

absl::Status RobustLock::AwaitRelease(const Segment& segment, Deadline deadline,
                                      uint64_t* seen, uint64_t* parked,
                                      bool* died) {
  while (true) {
    if ((*seen & kOwner) == 0) return absl::OkStatus();
    if (!deadline.HasPassed()) {
      *seen = SpinWhileOwned(word, *seen);
      if ((*seen & kOwner) == 0) return absl::OkStatus();
    }
    const Participant owner = OwnerOf(*seen);
    *died = segment.IsDead(owner);
    if (*died) return absl::OkStatus();
    if (deadline.HasPassed()) {
      return absl::DeadlineExceededError(absl::StrCat(
          "locking in shm segment, fd ", segment.fd(), ": participant ",
          owner.index, " (epoch ", owner.epoch,
          ") is alive and keeps the lock; wait longer or look at it"));
    }
    // Relaxed: the kernel compares again, and the bit carries no data.
    if ((*seen & kWaiters) == 0 &&
        !word.compare_exchange_strong(*seen, *seen | kWaiters,
                                      std::memory_order_relaxed)) {
      continue;
    }
    FutexWait(LowerHalf(word), static_cast<uint32_t>(*seen | kWaiters),
              Deadline::Earlier(deadline, Deadline::After(kPark)));
    *parked = kWaiters;
    *seen = word.load(std::memory_order_relaxed);
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
  } while (!word.compare_exchange_weak(seen, dirty ? kDirty : 0,
                                       std::memory_order_release,
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

bool RobustLockHold::Release() {
  const bool is_ours = IsOurs();
  RobustLock* const lock = std::exchange(lock_, nullptr);
  return is_ours && lock->Release(segment_, owner_, dirty_);
}

}  // namespace ipc::shm::internal
