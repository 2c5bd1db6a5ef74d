#include "ipc/shm/versioned_copies.h"

#include <sched.h>

#include <cstring>

namespace ipc::shm::internal {
namespace {

// One try fails when three stores complete within it; thousands in a row do not
// happen by chance.
constexpr int kTries = 10'000;
constexpr int kTriesBeforeYield = 16;

}  // namespace

bool VersionedCopies::Load(void* to) const {
  char* const target = static_cast<char*>(to);
  for (int tries = 0; tries < kTries; ++tries) {
    if (tries >= kTriesBeforeYield) sched_yield();
    // Acquire pairs with the store in VersionSignal::Publish.
    const uint64_t before = signal_->version.load(std::memory_order_acquire);
    const Word* const copy = CopyOf(before);
    for (size_t done = 0; done < bytes_; done += sizeof(uint64_t)) {
      // Acquire pairs with the release in Store: the version loaded below is no
      // older than the word.
      const uint64_t word =
          copy[done / sizeof(uint64_t)].load(std::memory_order_acquire);
      const size_t left = bytes_ - done;
      std::memcpy(target + done, &word, left < sizeof(word) ? left : 8);
    }
    // Relaxed: ordered after the words by their acquire.
    const uint64_t after = signal_->version.load(std::memory_order_relaxed);
    if (after - before < kCopies - 1) return true;
  }
  return false;
}

void VersionedCopies::Store(const void* from) {
  const char* const source = static_cast<const char*>(from);
  // Relaxed: only the holder of the lock changes it.
  const uint64_t next = signal_->version.load(std::memory_order_relaxed) + 1;
  Word* const copy = CopyOf(next);
  for (size_t done = 0; done < bytes_; done += sizeof(uint64_t)) {
    uint64_t word = 0;
    const size_t left = bytes_ - done;
    std::memcpy(&word, source + done, left < sizeof(word) ? left : 8);
    // Release pairs with the acquire in Load.
    copy[done / sizeof(uint64_t)].store(word, std::memory_order_release);
  }
  signal_->Publish(next);
}

}  // namespace ipc::shm::internal
