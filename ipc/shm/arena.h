// An Arena is memory in a segment in which structures of many blocks are built:
// lists, trees, tables. What one Guard changes happens whole or not at all,
// wherever its process is killed.
//
// Example:
//
//   struct Node {
//     int64_t key;
//     OffsetPtr<Node> next;
//   };
//
//   absl::StatusOr<Arena> arena = Arena::CreateAnonymous(1 << 20);
//   {
//     absl::StatusOr<Arena::Guard> guard = arena->Lock(absl::Seconds(1));
//     if (!guard.ok()) return guard.status();
//     absl::StatusOr<OffsetPtr<Node>> head = guard->root<Node>();
//     if (!head.ok()) return head.status();
//     auto node = guard->New(Node{.key = 7, .next = *head});
//     if (!node.ok()) return node.status();
//     if (auto status = guard->SetRoot(*node); !status.ok()) return status;
//   }  // now it is there to stay
//
// HashMap and Vector, in headers of their own, are built so.
//
// What holds:
// 1. One Guard at a time, in all processes, for readers as well.
// 2. All that is done by a Guard, to blocks and to what is in them, is there to
//    stay when it ends. If its process is killed before, the next Lock, which
//    notices within 10 ms, takes all of it back: blocks that were made are free
//    again, and those that were freed are as they were. Nothing has to be
//    repaired, and nothing leaks.
// 3. That is so because no block changes before its old bytes are in an undo
//    log: change what Change gives, and nothing else. A block made by the same
//    Guard since its last savepoint (and a HashMap that is created, and a
//    Vector that grows, make one) needs no copy. The log is full after
//    `undo_bytes` of changes in one Guard (24 bytes or more each):
//    ResourceExhausted, and the way out is to RollBack, or to end the Guard
//    with what is done so far.
//
// Cost: New looks at one block after the other, from where the last one was
// made. If it is the first that the Guard does, it joins free neighbours in
// passing; later it takes as many as it needs, each of which is 32 bytes of the
// log, so begin with large blocks. A block takes 16 bytes for its header and is
// a multiple of 16. What one Guard frees is there for the next one.
//
// Distrust: an OffsetPtr that leads out of the arena gives no address, and
// headers that make no sense give DataLoss. Which of its blocks a pointer leads
// to cannot be told: who shares an Arena trusts the others not to write
// rubbish into structures, though rubbish crashes nobody here. Nor is a pointer
// into a block told from one to its beginning if what is there looks like a
// header: to keep bytes from strangers in an Arena, keep no such pointers.
//
// T: see ipc/shm/shared_memory_safe.h. Thread safety: all members of Arena may
// be called from any thread and process; a Guard is for one thread at a time.
// Lifetime: an Arena is a view that keeps its segment mapped; copies are cheap.
// Addresses and spans are good until the Guard that gave them ends. Fork: a
// Guard that a child inherits gives it no right to the memory.
#ifndef IPC_SHM_ARENA_H_
#define IPC_SHM_ARENA_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/shm/layout.h"
#include "ipc/shm/offset_ptr.h"
#include "ipc/shm/placed.h"
#include "ipc/shm/robust_lock.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/shared_memory_safe.h"
#include "ipc/shm/undo_log.h"

namespace ipc::shm {

class Arena : public internal::Placed<Arena> {
 public:
  class Guard;

  static constexpr size_t kDefaultUndoBytes = 16384;

  // What an Arena with room for `bytes` of blocks takes in a user area.
  static constexpr size_t SizeBytes(size_t bytes,
                                    size_t undo_bytes = kDefaultUndoBytes);

  // The Arena at `offset` of the user area, empty if nobody has used it yet.
  // The numbers have to be the same for all who attach. FailedPrecondition if
  // something else is there, or it does not fit. CreateAnonymous, FromFd,
  // Create and Open take the same numbers; see ipc/shm/placed.h.
  static absl::StatusOr<Arena> Attach(Segment segment, size_t offset,
                                      size_t bytes,
                                      size_t undo_bytes = kDefaultUndoBytes);

  // DeadlineExceeded if a holder that is alive keeps it; PermissionDenied if
  // the segment is mapped for reading; DataLoss if a peer wrote rubbish into
  // the log of one that was killed, and forever then: make another Arena.
  absl::StatusOr<Guard> Lock(absl::Duration timeout = absl::InfiniteDuration());

 private:
  friend class internal::Placed<Arena>;

  struct Header;

  Arena(Segment segment, std::byte* object, size_t bytes, size_t undo_bytes)
      : Placed(std::move(segment), object),
        bytes_(bytes),
        undo_bytes_(undo_bytes) {}

  // The first 64 bytes of the heap are its own, so no OffsetPtr is 0.
  static constexpr size_t kHeapHeaderSize = 64;
  static constexpr size_t HeapBytes(size_t bytes) {
    return kHeapHeaderSize + (bytes + 63) / 64 * 64;
  }
  static constexpr size_t HeapOffset(size_t undo_bytes) {
    return internal::kObjectHeaderSize +
           internal::UndoLog::SizeBytes(undo_bytes);
  }

  size_t bytes_;
  size_t undo_bytes_;
};

// Exclusive access to an Arena until destroyed. Move-only.
class Arena::Guard {
 public:
  Guard(Guard&&) noexcept = default;
  ~Guard();

  // Whether a holder died, whose changes were taken back by this Guard's Lock.
  bool previous_owner_died() const { return previous_owner_died_; }

  // A new block with `value` in it, or with `count` zeroed T. ResourceExhausted
  // if there is no room, or none in the log.
  template <SharedMemorySafe T>
  absl::StatusOr<OffsetPtr<T>> New(const T& value = T());
  template <SharedMemorySafe T>
  absl::StatusOr<OffsetPtr<T>> NewArray(size_t count);
  // InvalidArgument if New has not made it, or it was freed.
  template <typename T>
  absl::Status Free(OffsetPtr<T> block) {
    return FreeBlock(block.offset);
  }

  // Where it is. nullptr if it is null or leads out of the arena.
  template <SharedMemorySafe T>
  const T* Get(OffsetPtr<T> pointer) const {
    return reinterpret_cast<const T*>(
        Find(pointer.offset, sizeof(T), alignof(T)));
  }
  // The same for `count` of them, one after the other; empty instead of
  // nullptr.
  template <SharedMemorySafe T>
  absl::Span<const T> GetArray(OffsetPtr<T> first, size_t count) const;

  // The same to be changed: keeps the bytes in the log first. InvalidArgument
  // where Get gives nullptr; ResourceExhausted if the log is full.
  template <SharedMemorySafe T>
  absl::StatusOr<T*> Change(OffsetPtr<T> pointer);
  // Of the array that begins with `array` those from `first` on, `count` of
  // them.
  template <SharedMemorySafe T>
  absl::StatusOr<absl::Span<T>> ChangeArray(OffsetPtr<T> array, size_t first,
                                            size_t count);

  // Where all begins: the one pointer that others find by itself. Null at
  // first; FailedPrecondition if it was set to another type.
  template <SharedMemorySafe T>
  absl::StatusOr<OffsetPtr<T>> root() const;
  template <SharedMemorySafe T>
  absl::Status SetRoot(OffsetPtr<T> root);

  // Takes back all that was changed since Lock, or since the savepoint. That
  // one, and those made before it, are good for another time. Ask Change again
  // after MakeSavepoint and RollBack: what it gave before is not kept anew.
  struct Savepoint {
    size_t position = 0;
  };
  Savepoint MakeSavepoint();
  void RollBack(Savepoint to);
  void RollBack() { RollBack(Savepoint()); }

  // Looks at all blocks. Bytes with their headers.
  struct Usage {
    size_t used_blocks = 0;
    size_t used_bytes = 0;
    size_t free_bytes = 0;
    size_t largest_free_bytes = 0;
  };
  absl::StatusOr<Usage> usage() const;
  // How many T the arena has room for at most, headers aside: a bound for what
  // a peer may have written.
  template <typename T>
  size_t MostOf() const {
    return heap_.size() / sizeof(T);
  }

 private:
  friend class Arena;
  struct Block;
  struct HeapHeader;
  struct Found;

  Guard(internal::RobustLockHold hold, Header* header, internal::UndoLog undo,
        absl::Span<std::byte> heap);

  Block& BlockAt(size_t offset) const;
  HeapHeader& heap_header() const;
  absl::Status Read(size_t offset, Found* found) const;
  bool IsUsable(const Found& found) const;
  bool IsFresh(size_t offset) const;
  void NextTransaction();

  absl::Status Protect(size_t offset, size_t bytes);
  absl::Status SetNext(size_t offset);
  absl::Status Extend(size_t offset, size_t enough, Found* found) const;
  void Join(size_t offset, const Found& found);
  absl::Status Take(size_t offset, const Found& found, size_t lead,
                    size_t need);
  absl::StatusOr<uint64_t> Allocate(size_t bytes, size_t alignment);
  absl::Status FreeBlock(uint64_t offset);
  std::byte* Find(uint64_t offset, size_t bytes, size_t alignment) const;
  absl::Status ProtectForChange(uint64_t block, uint64_t offset, size_t bytes,
                                size_t alignment);

  absl::Status CheckRoot(uint64_t layout) const;
  uint64_t RootOffset() const;
  absl::Status SetRoot(uint64_t offset, uint64_t layout);

  internal::RobustLockHold hold_;
  Header* header_;
  internal::UndoLog undo_;
  absl::Span<std::byte> heap_;
  bool previous_owner_died_ = false;
  // Numbers of transactions. What was freed before `begin_` may be used again;
  // what was made in `current_` has no old bytes worth keeping.
  uint64_t begin_ = 0;
  uint64_t current_ = 0;
  // Some of the ranges that `current_` has saved, to save none twice in a row.
  struct Range {
    size_t offset = 0;
    size_t bytes = 0;
  };
  std::array<Range, 16> recent_ = {};
};

// Implementation details follow.

constexpr size_t Arena::SizeBytes(size_t bytes, size_t undo_bytes) {
  constexpr size_t kMost = SIZE_MAX / 4;
  if (bytes > kMost || undo_bytes > kMost) return SIZE_MAX;
  return HeapOffset(undo_bytes) + HeapBytes(bytes);
}

template <SharedMemorySafe T>
absl::StatusOr<OffsetPtr<T>> Arena::Guard::New(const T& value) {
  const absl::StatusOr<uint64_t> offset = Allocate(sizeof(T), alignof(T));
  if (!offset.ok()) return offset.status();
  std::memcpy(heap_.data() + *offset, &value, sizeof(T));
  return OffsetPtr<T>{*offset};
}

template <SharedMemorySafe T>
absl::StatusOr<OffsetPtr<T>> Arena::Guard::NewArray(size_t count) {
  const absl::StatusOr<uint64_t> offset = Allocate(
      count > SIZE_MAX / sizeof(T) ? SIZE_MAX : count * sizeof(T), alignof(T));
  if (!offset.ok()) return offset.status();
  return OffsetPtr<T>{*offset};
}

template <SharedMemorySafe T>
absl::Span<const T> Arena::Guard::GetArray(OffsetPtr<T> first,
                                           size_t count) const {
  if (count > MostOf<T>()) return {};
  const std::byte* const at = Find(first.offset, count * sizeof(T), alignof(T));
  if (at == nullptr) return {};
  return absl::MakeSpan(reinterpret_cast<const T*>(at), count);
}

template <SharedMemorySafe T>
absl::StatusOr<T*> Arena::Guard::Change(OffsetPtr<T> pointer) {
  if (auto status = ProtectForChange(pointer.offset, pointer.offset, sizeof(T),
                                     alignof(T));
      !status.ok()) {
    return status;
  }
  return reinterpret_cast<T*>(heap_.data() + pointer.offset);
}

template <SharedMemorySafe T>
absl::StatusOr<absl::Span<T>> Arena::Guard::ChangeArray(OffsetPtr<T> array,
                                                        size_t first,
                                                        size_t count) {
  const size_t most = MostOf<T>();
  const bool fits = first <= most && count <= most && array;
  // Null is refused as what leads out of the arena.
  const uint64_t offset = fits ? array.offset + first * sizeof(T) : 0;
  if (auto status =
          ProtectForChange(array.offset, offset, count * sizeof(T), alignof(T));
      !status.ok()) {
    return status;
  }
  return absl::MakeSpan(reinterpret_cast<T*>(heap_.data() + offset), count);
}

template <SharedMemorySafe T>
absl::StatusOr<OffsetPtr<T>> Arena::Guard::root() const {
  if (auto status = CheckRoot(internal::LayoutHash<T>("root", 1));
      !status.ok()) {
    return status;
  }
  return OffsetPtr<T>{RootOffset()};
}

template <SharedMemorySafe T>
absl::Status Arena::Guard::SetRoot(OffsetPtr<T> root) {
  return SetRoot(root.offset, internal::LayoutHash<T>("root", 1));
}

}  // namespace ipc::shm

#endif  // IPC_SHM_ARENA_H_
