#include "ipc/shm/array_access.h"

#include <atomic>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "ipc/shm/racy_copy.h"

namespace ipc::shm::internal {
namespace {

// One try fails when a holder comes within it.
constexpr int kTries = 100;

}  // namespace

absl::StatusOr<ArrayHold> ArrayHold::Acquire(const Segment& segment,
                                             ArrayHeader& header,
                                             const UndoLog& undo,
                                             absl::Duration timeout) {
  auto hold = RobustLockHold::Acquire(segment, header.lock, timeout);
  if (!hold.ok()) return hold.status();
  // Relaxed: written by holders only. The fence keeps what they do to the
  // elements behind it and pairs with the one in LoadRacily.
  const uint64_t sequence = header.sequence.load(std::memory_order_relaxed);
  header.sequence.store(sequence | 1, std::memory_order_relaxed);
  ReleaseFence();
  ArrayHold result(*std::move(hold), header, undo);
  if (undo.exists() && result.hold_.previous_owner_died() &&
      result.undo_.RollBack()) {
    result.rolled_back_ = true;
    result.MarkConsistent();
  }
  return result;
}

ArrayHold::~ArrayHold() {
  // Odd it stays if the elements are not in order, and in a forked child, which
  // holds nothing.
  if (!hold_.IsHeld() || hold_.previous_owner_died()) return;
  undo_.Clear();
  const uint64_t sequence = header_->sequence.load(std::memory_order_relaxed);
  // Release pairs with the acquire in CopySnapshot.
  header_->sequence.store((sequence | 1) + 1, std::memory_order_release);
}

absl::Status ArrayHold::Protect(size_t offset, size_t bytes) {
  if (!undo_.exists()) {
    return absl::FailedPreconditionError(
        "protecting elements of an Array that has no undo log: create and "
        "attach to it with Options::undo");
  }
  if (!undo_.Save(offset, bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("protecting ", bytes,
                     " bytes of an Array: its undo log is full; unlock now and "
                     "then, or create it with more Options::undo"));
  }
  return absl::OkStatus();
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
    // Its fence pairs with the one in Acquire: had we read what a holder wrote,
    // we would now see its odd sequence.
    LoadRacily(to, elements, bytes);
    if (header.sequence.load(std::memory_order_relaxed) == before) {
      return absl::OkStatus();
    }
  }
  return absl::UnavailableError(
      absl::StrCat("snapshot of an Array, shm segment, fd ", segment.fd(),
                   ": a holder is at work; try again, or Lock to wait for it"));
}

}  // namespace ipc::shm::internal
