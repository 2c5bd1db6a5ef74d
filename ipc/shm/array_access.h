// The part of an Array that does not depend on T: who may touch the elements.
//
// Holders change elements by plain stores, in place. A snapshot copies them
// without the lock and keeps the copy only if `sequence` says that no holder
// was at work: a seqlock, but one whose readers give up instead of spinning on
// a holder that is stopped or dead.
//
//   holder:    lock; sequence odd; fence; change elements; sequence even;
//   unlock snapshot:  sequence even? copy; fence; sequence the same?
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

namespace ipc::shm::internal {

// The right to change the elements, until destroyed. Move-only.
class ArrayHold {
 public:
  // Errors as RobustLockHold::Acquire. `header` lies in `segment`.
  static absl::StatusOr<ArrayHold> Acquire(const Segment& segment,
                                           ArrayHeader& header,
                                           absl::Duration timeout);

  ArrayHold(ArrayHold&&) = default;
  ~ArrayHold();

  bool previous_owner_died() const { return hold_.previous_owner_died(); }
  void MarkConsistent() { hold_.MarkConsistent(); }

 private:
  ArrayHold(RobustLockHold hold, ArrayHeader& header)
      : hold_(std::move(hold)), header_(&header) {}

  RobustLockHold hold_;
  ArrayHeader* header_;
};

// Copies `bytes` bytes of elements to `to`. Unavailable while a holder is at
// work, DataLoss if one died and nobody has locked and marked consistent since.
// Never waits.
absl::Status CopySnapshot(const Segment& segment, const ArrayHeader& header,
                          const std::byte* elements, size_t bytes, void* to);

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_ARRAY_ACCESS_H_
