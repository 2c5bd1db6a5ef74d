#include "ipc/shm/undo_log.h"

#include <cstring>
#include <vector>

namespace ipc::shm::internal {

bool UndoLog::Save(size_t offset, size_t bytes) {
  if (bytes == 0) return true;
  if (capacity_ - saved_ < sizeof(Record) ||
      capacity_ - saved_ - sizeof(Record) < bytes ||
      capacity_ - saved_ < RecordBytes(bytes)) {
    return false;
  }
  const Record record = {offset, bytes};
  std::byte* const to = records() + saved_;
  std::memcpy(to, &record, sizeof(record));
  std::memcpy(to + sizeof(record), target_.data() + offset, bytes);
  saved_ += RecordBytes(bytes);
  // Release: the record comes before it.
  used().store(saved_, std::memory_order_release);
  // And what the caller does to the range after it, of which the compiler would
  // not know otherwise. See above why no other processor matters.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  return true;
}

void UndoLog::Clear() {
  if (exists()) CutTo(0);
}

void UndoLog::CutTo(size_t mark) {
  saved_ = mark;
  // Release: all changes come before it.
  used().store(mark, std::memory_order_release);
  // And what is saved or changed next, after it.
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

bool UndoLog::RollBack(size_t mark) {
  if (!exists()) return true;
  // Relaxed: whoever wrote it held the lock before us, or is this thread.
  const uint64_t used_bytes = used().load(std::memory_order_relaxed);
  if (used_bytes > capacity_) return false;
  struct Found {
    Record record;
    const std::byte* bytes;
  };
  std::vector<Found> all;
  uint64_t cut = used_bytes;  // the mark, or the next record behind it
  for (uint64_t at = 0; at < used_bytes;) {
    Found found;
    if (used_bytes - at < sizeof(Record)) return false;
    std::memcpy(&found.record, records() + at, sizeof(Record));
    // Or else the compiler might read it again after it was checked.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    const auto [offset, bytes] = found.record;
    if (bytes > target_.size() || offset > target_.size() - bytes ||
        used_bytes - at < RecordBytes(bytes)) {
      return false;
    }
    found.bytes = records() + at + sizeof(Record);
    if (at >= mark) {
      if (all.empty()) cut = at;
      all.push_back(found);
    }
    at += RecordBytes(bytes);
  }
  for (auto found = all.rbegin(); found != all.rend(); ++found) {
    std::memcpy(target_.data() + found->record.offset, found->bytes,
                found->record.bytes);
  }
  CutTo(cut);
  return true;
}

}  // namespace ipc::shm::internal
