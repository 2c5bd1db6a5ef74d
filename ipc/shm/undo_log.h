// What memory held before the holder of a lock changed it. The heir of one that
// was killed puts it back, so that of the changes under a lock all happen or
// none.
//
//   holder:              Save a range, change it, Save another, ..., Clear
//   heir of a dead one:  RollBack
//
//   offset
//        0  used     bytes of records; at 0 all changes are there to stay
//        8  zero
//       64  records  {u64 offset, u64 bytes, those bytes, zeros up to 8}
//
// A record is complete before `used` covers it, and `used` covers it before the
// range changes. That is an order of instructions only: SIGKILL ends a process
// between two of them, and the heir has asked the kernel for its death, so it
// sees whatever they stored (see ipc/shm/robust_lock.h). Who is killed while
// rolling back has changed nothing in the log: the next one starts again.
//
// This is write-ahead undo logging as in C. Mohan et al., "ARIES", ACM TODS
// 17(1), 1992, without a disk: it outlives processes, not the machine.
//
// Distrust: the holder goes by numbers of its own. RollBack believes no record
// that would leave the target.
//
// Thread safety: for the holder of the lock only.
#ifndef IPC_SHM_UNDO_LOG_H_
#define IPC_SHM_UNDO_LOG_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace ipc::shm::internal {

class UndoLog {
 public:
  // What a record of so many bytes takes of the capacity.
  static constexpr size_t RecordBytes(size_t bytes) {
    return sizeof(Record) + (bytes + 7) / 8 * 8;
  }
  // What the log itself takes, a multiple of 64.
  static constexpr size_t SizeBytes(size_t capacity) {
    return capacity == 0 ? 0 : (kHeaderSize + capacity + 63) / 64 * 64;
  }

  // None: capacity 0.
  UndoLog() = default;
  // `log`, of SizeBytes(capacity) and 8-byte aligned, is for ranges of `target`
  // and lies outside of it. REQUIRES: it was rolled back or cleared, or is to
  // be rolled back at once.
  UndoLog(std::byte* log, size_t capacity, absl::Span<std::byte> target)
      : log_(log), capacity_(capacity), target_(target) {}

  bool exists() const { return capacity_ != 0; }

  // Keeps the range as it is now. False if it has no room for it.
  // REQUIRES: the range lies in the target.
  bool Save(size_t offset, size_t bytes);
  // From now on what was saved is there to stay.
  void Clear();
  // Where the log ends.
  size_t Mark() const { return saved_; }
  // Puts everything back, the last saved first, down to that mark, and forgets
  // it. False if the log makes no sense: then nothing is changed.
  bool RollBack(size_t mark = 0);

 private:
  static constexpr size_t kHeaderSize = 64;
  struct Record {
    uint64_t offset;
    uint64_t bytes;
  };

  std::atomic<uint64_t>& used() const {
    return *reinterpret_cast<std::atomic<uint64_t>*>(log_);
  }
  std::byte* records() const { return log_ + kHeaderSize; }
  void CutTo(size_t mark);

  std::byte* log_ = nullptr;
  size_t capacity_ = 0;
  absl::Span<std::byte> target_;
  size_t saved_ = 0;  // what `used` is, if nobody scribbles over it
};

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_UNDO_LOG_H_
