// The part of an Array that does not depend on T: who may touch the elements.
//
// Holders change elements by plain stores, in place. A snapshot copies them
// without the lock and keeps the copy only if `sequence` says that no holder
// was at work: a seqlock, but one whose readers give up instead of spinning on
// a holder that is stopped or dead.
//
//   holder:    lock, sequence odd, fence,
//              change elements, sequence even, unlock
//   snapshot:  sequence even? copy, fence, sequence the same?
//
// A copy that is thrown away may have raced with a holder's stores, which the
// language does not allow between threads of one program; see
// ipc/shm/racy_copy.h.
#ifndef IPC_SHM_ARRAY_ACCESS_H_
#define IPC_SHM_ARRAY_ACCESS_H_

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/shm/array_layout.h"
#include "ipc/shm/robust_lock.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/undo_log.h"

namespace ipc::shm::internal {

// The right to change the elements, until destroyed. Move-only.
class ArrayHold {
 public:
  // Errors as RobustLockHold::Acquire. `header` lies in `segment`, and so does
  // `undo`, which may be none; what a dead holder has left in it is undone.
  static absl::StatusOr<ArrayHold> Acquire(const Segment& segment,
                                           ArrayHeader& header,
                                           const UndoLog& undo,
                                           absl::Duration timeout);

  ArrayHold(ArrayHold&&) = default;
  ~ArrayHold();

  bool previous_owner_died() const {
    return hold_.previous_owner_died() || rolled_back_;
  }
  bool rolled_back() const { return rolled_back_; }
  void MarkConsistent() { hold_.MarkConsistent(); }

  // The range is about to change. FailedPrecondition without a log, and
  // ResourceExhausted if that is full.
  absl::Status Protect(size_t offset, size_t bytes);
  void RollBack() {
    if (hold_.IsHeld()) undo_.RollBack();  // not a forked child
  }

 private:
  ArrayHold(RobustLockHold hold, ArrayHeader& header, const UndoLog& undo)
      : hold_(std::move(hold)), header_(&header), undo_(undo) {}

  RobustLockHold hold_;
  ArrayHeader* header_;
  UndoLog undo_;
  bool rolled_back_ = false;
};

// Copies `bytes` bytes of elements to `to`. Unavailable while a holder is at
// work, DataLoss if one died and nobody has locked and marked consistent since.
// Never waits.
absl::Status CopySnapshot(const Segment& segment, const ArrayHeader& header,
                          const std::byte* elements, size_t bytes, void* to);

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_ARRAY_ACCESS_H_
