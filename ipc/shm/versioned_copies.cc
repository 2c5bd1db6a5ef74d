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
    const size_t whole_words = bytes_ / sizeof(uint64_t);
    // Acquire pairs with the release in Store: the version loaded below is no
    // older than any of the words.
    for (size_t i = 0; i < whole_words; ++i) {
      const uint64_t word = copy[i].load(std::memory_order_acquire);
      std::memcpy(target + i * sizeof(word), &word, sizeof(word));
    }
    if (const size_t rest = bytes_ % sizeof(uint64_t); rest != 0) {
      const uint64_t word = copy[whole_words].load(std::memory_order_acquire);
      std::memcpy(target + whole_words * sizeof(word), &word, rest);
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
  const size_t whole_words = bytes_ / sizeof(uint64_t);
  // Release pairs with the acquire in Load.
  for (size_t i = 0; i < whole_words; ++i) {
    uint64_t word;
    std::memcpy(&word, source + i * sizeof(word), sizeof(word));
    copy[i].store(word, std::memory_order_release);
  }
  if (const size_t rest = bytes_ % sizeof(uint64_t); rest != 0) {
    uint64_t word = 0;
    std::memcpy(&word, source + whole_words * sizeof(word), rest);
    copy[whole_words].store(word, std::memory_order_release);
  }
  signal_->Publish(next);
}

}  // namespace ipc::shm::internal
