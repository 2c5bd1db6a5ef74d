#include "ipc/shm/robust_lock.h"

#include <algorithm>
#include <bit>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ipc/base/futex.h"
#include "ipc/base/spin_wait.h"

namespace ipc::shm::internal {
namespace {

constexpr uint64_t kWaiters = uint64_t{1} << 31;
constexpr uint64_t kDirty = uint64_t{1} << 30;
constexpr uint64_t kOwner = ~(kWaiters | kDirty);
constexpr uint64_t kIndex = kDirty - 1;
static_assert(Segment::kMaxParticipants < kIndex);

constexpr absl::Duration kPark = absl::Milliseconds(10);

constexpr uint64_t Pack(Participant owner) {
  return uint64_t{owner.epoch} << 32 | (uint64_t{owner.index} + 1);
}

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
const std::atomic<uint32_t>& LowerHalf(const RobustLockWord& word) {
  static_assert(std::endian::native == std::endian::little);
  return reinterpret_cast<const std::atomic<uint32_t>&>(word);
}

// Polls `word` for a while, until nobody owns it; returns what it held last.
uint64_t SpinWhileOwned(const RobustLockWord& word, uint64_t seen) {
  static SpinHistory history;
  SpinWait spin(&history, /*peer_cpu=*/-1);
  while ((seen & kOwner) != 0 && spin.Next()) {
    seen = word.load(std::memory_order_relaxed);
  }
  if ((seen & kOwner) == 0) spin.Succeeded();
  return seen;
}

}  // namespace

absl::StatusOr<RobustLockHold> RobustLockHold::Acquire(const Segment& segment,
                                                       RobustLockWord& word,
                                                       absl::Duration timeout) {
  const absl::StatusOr<Participant> self = segment.Self();
  if (!self.ok()) return self.status();
  // Nobody contends: no need to look at the clock. Acquire pairs with the
  // release in Release.
  uint64_t free = 0;
  if (word.compare_exchange_strong(free, Pack(*self), std::memory_order_acquire,
                                   std::memory_order_relaxed)) {
    return RobustLockHold(segment, word, *self, false);
  }
  return AcquireContended(segment, word, *self, Deadline::After(timeout));
}

absl::StatusOr<RobustLockHold> RobustLockHold::AcquireContended(
    const Segment& segment, RobustLockWord& word, Participant self,
    Deadline deadline) {
  uint64_t parked = 0;  // kWaiters once we have parked
  // Relaxed, here and below: the CAS decides and orders.
  uint64_t seen = word.load(std::memory_order_relaxed);
  for (;;) {
    if ((seen & kOwner) == 0) {
      // Acquire pairs with the release in Release.
      if (word.compare_exchange_weak(
              seen, Pack(self) | (seen & (kDirty | kWaiters)) | parked,
              std::memory_order_acquire, std::memory_order_relaxed)) {
        return RobustLockHold(segment, word, self, (seen & kDirty) != 0);
      }
      continue;
    }
    seen = SpinWhileOwned(word, seen);
    if ((seen & kOwner) == 0) continue;
    if (segment.IsDead(OwnerOf(seen))) {
      // What the dead wrote is visible: it ended before the kernel, whom we
      // asked after that, dropped its file lock.
      if (word.compare_exchange_strong(
              seen, Pack(self) | kDirty | (seen & kWaiters) | parked,
              std::memory_order_acquire, std::memory_order_relaxed)) {
        return RobustLockHold(segment, word, self, true);
      }
      continue;
    }
    if (deadline.HasPassed()) {
      const Participant owner = OwnerOf(seen);
      return absl::DeadlineExceededError(absl::StrCat(
          "locking in shm segment, fd ", segment.fd(), ": participant ",
          owner.index, " (epoch ", owner.epoch,
          ") is alive and keeps the lock; wait longer or look at it"));
    }
    // Relaxed: the kernel compares again, and the bit carries no data.
    if ((seen & kWaiters) == 0 &&
        !word.compare_exchange_strong(seen, seen | kWaiters,
                                      std::memory_order_relaxed)) {
      continue;
    }
    FutexWait(LowerHalf(word), static_cast<uint32_t>(seen | kWaiters),
              Deadline::Earlier(deadline, Deadline::After(kPark)));
    parked = kWaiters;
    seen = word.load(std::memory_order_relaxed);
  }
}

bool RobustLockHold::IsMarkedDirty(const RobustLockWord& word) {
  // Relaxed: for messages only.
  return (word.load(std::memory_order_relaxed) & kDirty) != 0;
}

bool RobustLockHold::IsOurs() const {
  if (word_ == nullptr) return false;
  const absl::StatusOr<Participant> self = segment_.Self();
  return self.ok() && *self == owner_;
}

bool RobustLockHold::IsHeld() const {
  // Relaxed: if it is ours, we wrote it.
  return IsOurs() &&
         (word_->load(std::memory_order_relaxed) & kOwner) == Pack(owner_);
}

bool RobustLockHold::Release() {
  const bool is_ours = IsOurs();
  RobustLockWord* const word = std::exchange(word_, nullptr);
  if (!is_ours) return false;
  uint64_t seen = word->load(std::memory_order_relaxed);
  do {
    if ((seen & kOwner) != Pack(owner_)) {
      // Taken away while we live: the others may hold us for dead.
      segment_.RenewSelfIfLost().IgnoreError();
      return false;
    }
    // Release pairs with the acquire in Acquire.
  } while (!word->compare_exchange_weak(seen, dirty_ ? kDirty : 0,
                                        std::memory_order_release,
                                        std::memory_order_relaxed));
  // One is enough: it takes the lock with the bit set and wakes the next.
  if ((seen & kWaiters) != 0) FutexWake(LowerHalf(*word), 1);
  return true;
}

}  // namespace ipc::shm::internal
