// An Array<T> is a number of T that several processes change in place, one at a
// time.
//
// Example:
//
//   absl::StatusOr<Array<double>> prices = Array<double>::CreateAnonymous(100);
//   ... grant prices->fd() to another process; there:
//   auto prices = Array<double>::FromFd(std::move(fd));
//   {
//     auto guard = prices->Lock(absl::Seconds(1));
//     if (!guard.ok()) return guard.status();
//     if (guard->previous_owner_died()) {
//       ... some elements may be old and some new, or half written: repair ...
//       guard->MarkConsistent();
//     }
//     for (double& price : guard->span()) price *= 1.02;
//   }  // unlocks
//   absl::StatusOr<std::vector<double>> copy = prices->Snapshot();
//
// What holds, whoever is killed and wherever:
// 1. One Guard at a time. A holder that is slow or stopped keeps it; the death
//    of one is noticed within 10 ms by whoever waits.
// 2. The next Guard then says previous_owner_died(), and so do all after it
//    until one calls MarkConsistent. It may say so even though the dead one had
//    changed nothing, never the reverse.
// 3. A Snapshot, Get or Set that returns OK never met a half-done change.
//
// No system call to lock and unlock while nobody else wants to. Not recursive:
// a thread that locks twice waits for itself, as in `f(a.Lock()->span(),
// a.Lock()->span())`, where both Guards live to the end of the statement. The
// lock belongs to the process: a thread must not end while it has a Guard. See
// ipc/shm/robust_lock.h.
//
// T: see ipc/shm/shared_memory_safe.h and, for structs, LayoutId in layout.h.
// Thread safety: all members of Array may be called from any thread and
// process; a Guard is for one thread at a time. Lifetime: an Array is a view
// that keeps its segment mapped; copies are cheap. Fork: a Guard that a child
// inherits gives it no right to the elements.
#ifndef IPC_SHM_ARRAY_H_
#define IPC_SHM_ARRAY_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/array_access.h"
#include "ipc/shm/array_layout.h"
#include "ipc/shm/layout.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/shared_memory_safe.h"

namespace ipc::shm {

template <SharedMemorySafe T>
class Array {
 public:
  // Exclusive access to the elements until destroyed. Move-only.
  class Guard {
   public:
    Guard(Guard&&) noexcept = default;

    // Valid for as long as this Guard.
    absl::Span<T> span() const { return span_; }
    // Whether a holder died and nobody has called MarkConsistent since.
    bool previous_owner_died() const { return hold_.previous_owner_died(); }
    // Says that the elements are in order again.
    void MarkConsistent() { hold_.MarkConsistent(); }

   private:
    friend class Array;
    Guard(internal::ArrayHold hold, absl::Span<T> span)
        : hold_(std::move(hold)), span_(span) {}

    internal::ArrayHold hold_;
    absl::Span<T> span_;
  };

  // What `count` elements take in a user area, a multiple of
  // Segment::kAlignment; SIZE_MAX if more than there can be.
  static constexpr size_t SizeBytes(size_t count);

  // `count` zeroed elements, perhaps none, in a segment of their own.
  // ResourceExhausted if there is no memory.
  static absl::StatusOr<Array> CreateAnonymous(size_t count);
  // The Array that another process created so, with as many elements; errors as
  // Segment::FromFd and Attach.
  static absl::StatusOr<Array> FromFd(UniqueFd fd,
                                      Access access = Access::kReadWrite);
  // The Array at `offset` of the user area, zero if nobody has changed it yet.
  // FailedPrecondition if something else is there, such as an Array of another
  // size, or it does not fit; InvalidArgument if `offset` is not a multiple of
  // Segment::kAlignment. Objects that overlap partly are not found out.
  static absl::StatusOr<Array> Attach(Segment segment, size_t offset,
                                      size_t count);

  size_t size() const { return size_; }

  // DeadlineExceeded if a holder that is alive keeps it; PermissionDenied if
  // the segment is mapped for reading.
  absl::StatusOr<Guard> Lock(absl::Duration timeout = absl::InfiniteDuration());

  // All elements as some holder left them. Never waits and needs no right to
  // write: Unavailable while a holder is at work, or if holders came in between
  // in each of many tries; DataLoss if one died at work and nobody has called
  // MarkConsistent. (A death is told from work only after the next Lock.)
  absl::StatusOr<std::vector<T>> Snapshot() const;
  // The same into memory of the caller's. InvalidArgument unless it has room
  // for size() elements, exactly; with an error, what is in there is garbage.
  absl::Status SnapshotInto(absl::Span<T> to) const;

  // One element, under the lock; so these wait for a holder. OutOfRange beyond
  // the end; DataLoss if a holder died and nobody has called MarkConsistent;
  // otherwise as Lock.
  absl::StatusOr<T> Get(size_t index,
                        absl::Duration timeout = absl::InfiniteDuration());
  absl::Status Set(size_t index, const T& value,
                   absl::Duration timeout = absl::InfiniteDuration());

  // Owned by the segment; for other processes' FromFd if that holds nothing but
  // this Array.
  int fd() const { return segment_.fd(); }
  const Segment& segment() const { return segment_; }

 private:
  Array(Segment segment, std::byte* object, size_t size)
      : segment_(std::move(segment)), object_(object), size_(size) {}

  internal::ArrayHeader* header() const {
    return reinterpret_cast<internal::ArrayHeader*>(object_);
  }
  T* elements() const {
    return reinterpret_cast<T*>(object_ + sizeof(internal::ArrayHeader));
  }
  absl::StatusOr<Guard> LockElement(size_t index, absl::Duration timeout);

  Segment segment_;
  std::byte* object_;  // ArrayHeader, elements
  size_t size_;
};

// Implementation details follow.

template <SharedMemorySafe T>
constexpr size_t Array<T>::SizeBytes(size_t count) {
  constexpr size_t kHeader = sizeof(internal::ArrayHeader);
  constexpr size_t kUnit = Segment::kAlignment;
  if (count > (SIZE_MAX - kHeader - kUnit) / sizeof(T)) return SIZE_MAX;
  return (kHeader + count * sizeof(T) + kUnit - 1) / kUnit * kUnit;
}

template <SharedMemorySafe T>
absl::StatusOr<Array<T>> Array<T>::CreateAnonymous(size_t count) {
  // Not rounded up: from this size FromFd knows how many elements there are.
  const size_t bytes = SizeBytes(count) == SIZE_MAX
                           ? SIZE_MAX
                           : sizeof(internal::ArrayHeader) + count * sizeof(T);
  absl::StatusOr<Segment> segment = Segment::CreateAnonymous(bytes);
  if (!segment.ok()) return segment.status();
  return Attach(*std::move(segment), 0, count);
}

template <SharedMemorySafe T>
absl::StatusOr<Array<T>> Array<T>::FromFd(UniqueFd fd, Access access) {
  absl::StatusOr<Segment> segment = Segment::FromFd(std::move(fd), access);
  if (!segment.ok()) return segment.status();
  constexpr size_t kHeader = sizeof(internal::ArrayHeader);
  const size_t bytes = segment->bytes().size();
  const size_t count = bytes < kHeader ? 0 : (bytes - kHeader) / sizeof(T);
  return Attach(*std::move(segment), 0, count);
}

template <SharedMemorySafe T>
absl::StatusOr<Array<T>> Array<T>::Attach(Segment segment, size_t offset,
                                          size_t count) {
  // The end of the last element, without what SizeBytes adds to it: that need
  // not be there.
  const size_t size = SizeBytes(count) == SIZE_MAX
                          ? SIZE_MAX
                          : sizeof(internal::ArrayHeader) + count * sizeof(T);
  const absl::StatusOr<std::byte*> object =
      internal::AttachObject(segment, offset,
                             {"Array", sizeof(T), count, size,
                              internal::LayoutHash<T>("Array", count)});
  if (!object.ok()) return object.status();
  return Array(std::move(segment), *object, count);
}

template <SharedMemorySafe T>
absl::StatusOr<typename Array<T>::Guard> Array<T>::Lock(
    absl::Duration timeout) {
  auto hold = internal::ArrayHold::Acquire(segment_, *header(), timeout);
  if (!hold.ok()) return hold.status();
  return Guard(*std::move(hold), absl::MakeSpan(elements(), size_));
}

template <SharedMemorySafe T>
absl::StatusOr<std::vector<T>> Array<T>::Snapshot() const {
  static_assert(!std::same_as<T, bool>,
                "std::vector<bool> is no array; take Array<uint8_t>");
  std::vector<T> copy(size_);
  if (auto status = SnapshotInto(absl::MakeSpan(copy)); !status.ok()) {
    return status;
  }
  return copy;
}

template <SharedMemorySafe T>
absl::Status Array<T>::SnapshotInto(absl::Span<T> to) const {
  if (to.size() != size_) {
    return absl::InvalidArgumentError(
        absl::StrCat("snapshot of an Array of ", size_, ", fd ", fd(),
                     ", into memory for ", to.size()));
  }
  return internal::CopySnapshot(segment_, *header(),
                                object_ + sizeof(internal::ArrayHeader),
                                size_ * sizeof(T), to.data());
}

template <SharedMemorySafe T>
absl::StatusOr<typename Array<T>::Guard> Array<T>::LockElement(
    size_t index, absl::Duration timeout) {
  if (index >= size_) {
    return absl::OutOfRangeError(absl::StrCat(
        "element ", index, " of an Array of ", size_, ", fd ", fd()));
  }
  absl::StatusOr<Guard> guard = Lock(timeout);
  if (guard.ok() && guard->previous_owner_died()) {
    return absl::DataLossError(absl::StrCat(
        "element ", index, " of an Array, fd ", fd(),
        ": a holder died while changing it; Lock it, repair the elements and ",
        "call MarkConsistent"));
  }
  return guard;
}

template <SharedMemorySafe T>
absl::StatusOr<T> Array<T>::Get(size_t index, absl::Duration timeout) {
  const absl::StatusOr<Guard> guard = LockElement(index, timeout);
  if (!guard.ok()) return guard.status();
  return guard->span()[index];
}

template <SharedMemorySafe T>
absl::Status Array<T>::Set(size_t index, const T& value,
                           absl::Duration timeout) {
  const absl::StatusOr<Guard> guard = LockElement(index, timeout);
  if (!guard.ok()) return guard.status();
  guard->span()[index] = value;
  return absl::OkStatus();
}

}  // namespace ipc::shm

#endif  // IPC_SHM_ARRAY_H_
