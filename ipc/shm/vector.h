// A Vector<T> grows in an Arena, for all who attach to that.
//
// Example:
//
//   {
//     absl::StatusOr<Arena::Guard> guard = arena.Lock();
//     absl::StatusOr<Vector<double>> samples = Vector<double>::Create(*guard);
//     if (auto status = samples->PushBack(2.5); !status.ok()) return status;
//     if (auto status = guard->SetRoot(samples->pointer()); ...
//   }
//   {  // elsewhere
//     absl::StatusOr<Arena::Guard> guard = arena.Lock();
//     auto samples = Vector<double>::At(
//         *guard, *guard->root<Vector<double>::Header>());
//     for (double sample : samples->span()) ...
//   }
//
// What a Guard does to it is there whole or not at all, see ipc/shm/arena.h.
// A member that fails has changed nothing.
//
// Lifetime: not beyond the Guard; spans are good until the Guard ends or the
// Vector grows. Thread safety: as of the Guard.
#ifndef IPC_SHM_VECTOR_H_
#define IPC_SHM_VECTOR_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ipc/shm/arena.h"
#include "ipc/shm/layout.h"
#include "ipc/shm/offset_ptr.h"
#include "ipc/shm/shared_memory_safe.h"

namespace ipc::shm {

template <SharedMemorySafe T>
class Vector {
 public:
  // As it lies in the arena.
  struct Header {
    static constexpr uint64_t kLayoutId = internal::Hash(
        LayoutId("ipc.shm.Vector/1"), internal::LayoutHash<T>("element", 1));
    uint64_t size;
    uint64_t capacity;
    OffsetPtr<T> elements;  // null if there is no capacity
  };

  // An empty one. ResourceExhausted if there is no room.
  static absl::StatusOr<Vector> Create(Arena::Guard& guard);
  // The one that was created there. InvalidArgument if there is none.
  static absl::StatusOr<Vector> At(Arena::Guard& guard,
                                   OffsetPtr<Header> pointer);

  // Where it is, for a root or a member of something else.
  OffsetPtr<Header> pointer() const { return pointer_; }
  size_t size() const { return span().size(); }
  // Empty also if a peer wrote rubbish.
  absl::Span<const T> span() const {
    const Header header = *guard_->Get(pointer_);
    return guard_->GetArray(header.elements, header.size);
  }

  // Makes room for so many elements in all. ResourceExhausted if there is none
  // in the arena, or in the log.
  absl::Status Reserve(size_t capacity);
  // As Reserve, of twice as many if it has no room.
  absl::Status PushBack(const T& value);
  // OutOfRange if it is empty.
  absl::Status PopBack();
  // Elements to be changed; see Arena::Guard::ChangeArray. OutOfRange beyond
  // the end.
  absl::StatusOr<absl::Span<T>> Change(size_t first, size_t count);

  // Frees all of it. With ResourceExhausted, if the log is full, it is freed in
  // part: RollBack.
  absl::Status Destroy();

 private:
  Vector(Arena::Guard& guard, OffsetPtr<Header> pointer)
      : guard_(&guard), pointer_(pointer) {}

  Arena::Guard* guard_;
  OffsetPtr<Header> pointer_;
};

// Implementation details follow.

template <SharedMemorySafe T>
absl::StatusOr<Vector<T>> Vector<T>::Create(Arena::Guard& guard) {
  const auto header = guard.New(Header{});
  if (!header.ok()) return header.status();
  return Vector(guard, *header);
}

template <SharedMemorySafe T>
absl::StatusOr<Vector<T>> Vector<T>::At(Arena::Guard& guard,
                                        OffsetPtr<Header> pointer) {
  const Header* const header = guard.Get(pointer);
  if (header == nullptr || header->size > header->capacity ||
      guard.GetArray(header->elements, header->capacity).size() !=
          header->capacity) {
    return absl::InvalidArgumentError(
        absl::StrCat("no Vector is at offset ", pointer.offset,
                     " of the Arena: Create it first"));
  }
  return Vector(guard, pointer);
}

template <SharedMemorySafe T>
absl::Status Vector<T>::Reserve(size_t capacity) {
  const Header old = *guard_->Get(pointer_);
  if (capacity <= old.capacity) return absl::OkStatus();
  // What can fail comes first, and the old elements last, which are freed but
  // not used again so soon.
  const auto header = guard_->Change(pointer_);
  if (!header.ok()) return header.status();
  const absl::Span<const T> from = span();
  const Arena::Guard::Savepoint before = guard_->MakeSavepoint();
  const auto elements = guard_->NewArray<T>(capacity);
  if (!elements.ok()) return elements.status();
  const auto to = guard_->ChangeArray(*elements, 0, from.size());
  if (!to.ok()) {
    guard_->RollBack(before);
    return to.status();
  }
  std::copy(from.begin(), from.end(), to->begin());
  if (old.elements) {
    if (auto status = guard_->Free(old.elements); !status.ok()) {
      guard_->RollBack(before);
      return status;
    }
  }
  (*header)->capacity = capacity;
  (*header)->elements = *elements;
  return absl::OkStatus();
}

template <SharedMemorySafe T>
absl::Status Vector<T>::PushBack(const T& value) {
  const Header old = *guard_->Get(pointer_);
  if (old.size == old.capacity) {
    const size_t capacity = std::max<size_t>(4, 2 * old.capacity);
    if (auto status = Reserve(capacity); !status.ok()) return status;
  }
  const auto header = guard_->Change(pointer_);
  if (!header.ok()) return header.status();
  const auto element =
      guard_->ChangeArray((*header)->elements, (*header)->size, 1);
  if (!element.ok()) return element.status();
  (*element)[0] = value;
  ++(*header)->size;
  return absl::OkStatus();
}

template <SharedMemorySafe T>
absl::Status Vector<T>::PopBack() {
  const auto header = guard_->Change(pointer_);
  if (!header.ok()) return header.status();
  if ((*header)->size == 0) return absl::OutOfRangeError("the Vector is empty");
  --(*header)->size;
  return absl::OkStatus();
}

template <SharedMemorySafe T>
absl::StatusOr<absl::Span<T>> Vector<T>::Change(size_t first, size_t count) {
  const size_t size = span().size();
  if (first > size || count > size - first) {
    return absl::OutOfRangeError(absl::StrCat(
        "changing ", count, " from ", first, " on of a Vector of ", size));
  }
  if (count == 0) return absl::Span<T>();
  return guard_->ChangeArray(guard_->Get(pointer_)->elements, first, count);
}

template <SharedMemorySafe T>
absl::Status Vector<T>::Destroy() {
  const Header header = *guard_->Get(pointer_);
  if (header.elements) {
    if (auto status = guard_->Free(header.elements); !status.ok()) {
      return status;
    }
  }
  return guard_->Free(pointer_);
}

}  // namespace ipc::shm

#endif  // IPC_SHM_VECTOR_H_
