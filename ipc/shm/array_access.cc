#include "ipc/shm/array_access.h"

#include <atomic>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace ipc::shm::internal {
namespace {

// One try fails when a holder comes within it.
constexpr int kTries = 100;

// GCC warns that ThreadSanitizer does not model fences. It does not have to:
// what they order is CopyRacily, which it does not see.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif
void Fence(std::memory_order order) { std::atomic_thread_fence(order); }
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

// Reads memory that another thread may be writing. Each aligned word is read
// once (volatile), so nothing worse than an outdated mix can come of it, and
// the caller throws a mix away. Hidden from ThreadSanitizer, which sees the
// threads of one process only and could not know that.
__attribute__((no_sanitize("thread"), noinline)) void CopyRacily(
    const std::byte* from, size_t bytes, std::byte* to) {
  const volatile uint64_t* const words =
      reinterpret_cast<const volatile uint64_t*>(from);
  size_t done = 0;
  for (; bytes - done >= sizeof(uint64_t); done += sizeof(uint64_t)) {
    const uint64_t word = words[done / sizeof(uint64_t)];
    __builtin_memcpy(to + done, &word, sizeof(word));
  }
  for (; done < bytes; ++done) {
    to[done] = static_cast<const volatile std::byte*>(from)[done];
  }
}

}  // namespace

absl::StatusOr<ArrayHold> ArrayHold::Acquire(const Segment& segment,
                                             ArrayHeader& header,
                                             absl::Duration timeout) {
  auto hold = RobustLockHold::Acquire(segment, header.lock, timeout);
  if (!hold.ok()) return hold.status();
  // Relaxed: written by holders only. The fence keeps what they do to the
  // elements behind it and pairs with the one in CopySnapshot.
  const uint64_t sequence = header.sequence.load(std::memory_order_relaxed);
  header.sequence.store(sequence | 1, std::memory_order_relaxed);
  Fence(std::memory_order_release);
  return ArrayHold(*std::move(hold), header);
}

ArrayHold::~ArrayHold() {
  // Odd it stays if the elements are not in order, and in a forked child, which
  // holds nothing.
  if (!hold_.IsHeld() || hold_.previous_owner_died()) return;
  const uint64_t sequence = header_->sequence.load(std::memory_order_relaxed);
  // Release pairs with the acquire in CopySnapshot.
  header_->sequence.store((sequence | 1) + 1, std::memory_order_release);
}

absl::Status CopySnapshot(const Segment& segment, const ArrayHeader& header,
                          const std::byte* elements, size_t bytes, void* to) {
  for (int tries = 0; tries < kTries; ++tries) {
    // Acquire pairs with the release in ~ArrayHold.
    const uint64_t before = header.sequence.load(std::memory_order_acquire);
    if (before % 2 != 0) {
      if (!header.lock.IsDirty()) continue;
      return absl::DataLossError(absl::StrCat(
          "snapshot of an Array, shm segment, fd ", segment.fd(),
          ": a holder died while changing it; Lock it, repair the elements ",
          "and call MarkConsistent"));
    }
    CopyRacily(elements, bytes, static_cast<std::byte*>(to));
    // Pairs with the release fence in Acquire: had we read what a holder wrote,
    // we would now see its odd sequence.
    Fence(std::memory_order_acquire);
    if (header.sequence.load(std::memory_order_relaxed) == before) {
      return absl::OkStatus();
    }
  }
  return absl::UnavailableError(
      absl::StrCat("snapshot of an Array, shm segment, fd ", segment.fd(),
                   ": a holder is at work; try again, or Lock to wait for it"));
}

}  // namespace ipc::shm::internal
