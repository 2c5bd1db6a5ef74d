#include "ipc/shm/versioned_copies.h"

#include <sched.h>

#include <atomic>

#include "ipc/shm/racy_copy.h"

namespace ipc::shm::internal {
namespace {

// One try fails when three stores complete within it; thousands in a row do not
// happen by chance.
constexpr int kTries = 10'000;
constexpr int kTriesBeforeYield = 16;

}  // namespace

bool VersionedCopies::Load(void* to) const {
  for (int tries = 0; tries < kTries; ++tries) {
    if (tries >= kTriesBeforeYield) sched_yield();
    // Acquire pairs with the store in VersionSignal::Publish.
    const uint64_t before = signal_->word.load(std::memory_order_acquire);
    LoadRacily(to, CopyOf(before), bytes_);
    // Relaxed: behind the fence at the end of LoadRacily.
    const uint64_t after = signal_->word.load(std::memory_order_relaxed);
    if (after - before < kCopies - 1) return true;
  }
  return false;
}

void VersionedCopies::Store(const void* from) {
  // Relaxed: only the holder of the lock changes it.
  const uint64_t next = signal_->word.load(std::memory_order_relaxed) + 1;
  StoreRacily(CopyOf(next), from, bytes_);
  signal_->Publish(next);
}

}  // namespace ipc::shm::internal
