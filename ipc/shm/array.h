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
// Or without repairs, by an undo log with room for ten elements:
//
//   auto prices = Array<double>::CreateAnonymous(100, {.undo = 10});
//   {
//     auto guard = prices->Lock();
//     absl::StatusOr<absl::Span<double>> pair = guard->Protect(3, 2);
//     if (!pair.ok()) return pair.status();
//     (*pair)[0] -= 5;
//     (*pair)[1] += 5;
//   }  // now both are there to stay; killed before, and neither is
//
// What holds, whoever is killed and wherever:
// 1. One Guard at a time. A holder that is slow or stopped keeps it; the death
//    of one is noticed within 10 ms by whoever waits.
// 2. The next Guard then says previous_owner_died(), and so do all after it
//    until one calls MarkConsistent. It may say so even though the dead one had
//    changed nothing, never the reverse.
// 3. A Snapshot, Get or Set that returns OK never met a half-done change.
// 4. With an undo log, what a holder protected before it changed it is put back
//    when it is killed, and the next Guard, which says rolled_back(), finds the
//    elements as if the dead one had never locked; or as it left them, if it
//    was killed while unlocking. Nothing is left to mark consistent.
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

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/array_access.h"
#include "ipc/shm/array_layout.h"
#include "ipc/shm/layout.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/shared_memory_safe.h"
#include "ipc/shm/undo_log.h"

namespace ipc::shm {

template <SharedMemorySafe T>
class Array {
 public:
  // Exclusive access to the elements until destroyed. Move-only.
  class Guard {
   public:
    Guard(Guard&&) noexcept = default;

    // Valid for as long as this Guard. What is changed by it and not protected
    // is not undone.
    absl::Span<T> span() const { return span_; }
    // Whether a holder died and nobody has called MarkConsistent since; or died
    // before this Guard, which has put back what it had protected.
    bool previous_owner_died() const { return hold_.previous_owner_died(); }

    // Keeps `count` elements from `first` on as they are in the undo log, and
    // gives them, to be changed. OutOfRange beyond the end; FailedPrecondition
    // if there is no log; ResourceExhausted if it is full: what was protected
    // before still is, and can be taken back.
    absl::StatusOr<absl::Span<T>> Protect(size_t first, size_t count);
    // Takes back what was changed of what was protected since Lock.
    void RollBack() { hold_.RollBack(); }
    // Whether this Guard's Lock has done so for one that died.
    bool rolled_back() const { return hold_.rolled_back(); }

    // Says that the elements are in order again.
    void MarkConsistent() { hold_.MarkConsistent(); }

   private:
    friend class Array;
    Guard(internal::ArrayHold hold, absl::Span<T> span)
        : hold_(std::move(hold)), span_(span) {}

    internal::ArrayHold hold_;
    absl::Span<T> span_;
  };

  // The same for all who attach to one Array.
  struct Options {
    // For how many elements at least the undo log has room in one Lock, each
    // counted as often as it is protected; 0 for no log.
    size_t undo = 0;
  };

  // What `count` elements take in a user area, a multiple of
  // Segment::kAlignment; SIZE_MAX if more than there can be.
  static constexpr size_t SizeBytes(size_t count, Options options);
  static constexpr size_t SizeBytes(size_t count) {
    return SizeBytes(count, Options());
  }

  // `count` zeroed elements, perhaps none, in a segment of their own.
  // ResourceExhausted if there is no memory.
  static absl::StatusOr<Array> CreateAnonymous(size_t count, Options options);
  static absl::StatusOr<Array> CreateAnonymous(size_t count) {
    return CreateAnonymous(count, Options());
  }
  // The Array that another process created so, with as many elements; errors as
  // Segment::FromFd and Attach.
  static absl::StatusOr<Array> FromFd(UniqueFd fd, Access access,
                                      Options options);
  static absl::StatusOr<Array> FromFd(UniqueFd fd,
                                      Access access = Access::kReadWrite) {
    return FromFd(std::move(fd), access, Options());
  }
  // The same under a name; errors as Segment::Create and Open. Segment::Unlink
  // removes the name.
  static absl::StatusOr<Array> Create(absl::string_view name, size_t count,
                                      Options options);
  static absl::StatusOr<Array> Create(absl::string_view name, size_t count) {
    return Create(name, count, Options());
  }
  static absl::StatusOr<Array> Open(absl::string_view name, Access access,
                                    Options options);
  static absl::StatusOr<Array> Open(absl::string_view name,
                                    Access access = Access::kReadWrite) {
    return Open(name, access, Options());
  }
  // The Array at `offset` of the user area, zero if nobody has changed it yet.
  // FailedPrecondition if something else is there, such as an Array of another
  // size, or it does not fit; InvalidArgument if `offset` is not a multiple of
  // Segment::kAlignment. Objects that overlap partly are not found out.
  static absl::StatusOr<Array> Attach(Segment segment, size_t offset,
                                      size_t count, Options options);
  static absl::StatusOr<Array> Attach(Segment segment, size_t offset,
                                      size_t count) {
    return Attach(std::move(segment), offset, count, Options());
  }

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
  Array(Segment segment, std::byte* object, size_t size, Options options)
      : segment_(std::move(segment)),
        object_(object),
        size_(size),
        options_(options) {}

  static constexpr size_t kHeaderSize = sizeof(internal::ArrayHeader);
  // Of the records for so many elements, each alone; fewer and longer records
  // take less.
  static constexpr size_t UndoCapacity(Options options) {
    return options.undo * internal::UndoLog::RecordBytes(sizeof(T));
  }
  // Where the elements begin.
  static constexpr size_t ElementsOffset(Options options) {
    return kHeaderSize + internal::UndoLog::SizeBytes(UndoCapacity(options));
  }
  // Of the whole object to the end of the last element; SIZE_MAX if it is more
  // than there can be.
  static constexpr size_t ExactBytes(size_t count, Options options);

  internal::ArrayHeader* header() const {
    return reinterpret_cast<internal::ArrayHeader*>(object_);
  }
  T* elements() const {
    return reinterpret_cast<T*>(object_ + ElementsOffset(options_));
  }
  internal::UndoLog undo() const {
    if (options_.undo == 0) return {};
    return {object_ + kHeaderSize, UndoCapacity(options_),
            absl::MakeSpan(reinterpret_cast<std::byte*>(elements()),
                           size_ * sizeof(T))};
  }
  // The one in a segment of its own, whose size says how many elements it has.
  static absl::StatusOr<Array> AttachAll(absl::StatusOr<Segment> segment,
                                         Options options);
  absl::StatusOr<Guard> LockElement(size_t index, absl::Duration timeout);
  // An element as a T. A bool is not read as such: a peer's 2 would be neither
  // true nor false.
  static T ToValid(const T& element) {
    if constexpr (std::same_as<T, bool>) {
      unsigned char byte;
      std::memcpy(&byte, &element, sizeof(byte));
      return byte != 0;
    } else {
      return element;
    }
  }

  Segment segment_;
  std::byte* object_;  // see ipc/shm/array_layout.h
  size_t size_;
  Options options_;
};

// Implementation details follow.

template <SharedMemorySafe T>
constexpr size_t Array<T>::ExactBytes(size_t count, Options options) {
  constexpr size_t kMost = SIZE_MAX / 4;  // of each part, so the sum is exact
  constexpr size_t kRecord = internal::UndoLog::RecordBytes(sizeof(T));
  if (count > kMost / sizeof(T) || options.undo > kMost / kRecord) {
    return SIZE_MAX;
  }
  return ElementsOffset(options) + count * sizeof(T);
}

template <SharedMemorySafe T>
constexpr size_t Array<T>::SizeBytes(size_t count, Options options) {
  constexpr size_t kUnit = Segment::kAlignment;
  const size_t exact = ExactBytes(count, options);
  return exact == SIZE_MAX ? exact : (exact + kUnit - 1) / kUnit * kUnit;
}

template <SharedMemorySafe T>
absl::StatusOr<Array<T>> Array<T>::CreateAnonymous(size_t count,
                                                   Options options) {
  // Not rounded up: from this size FromFd knows how many elements there are.
  absl::StatusOr<Segment> segment =
      Segment::CreateAnonymous(ExactBytes(count, options));
  if (!segment.ok()) return segment.status();
  return Attach(*std::move(segment), 0, count, options);
}

template <SharedMemorySafe T>
absl::StatusOr<Array<T>> Array<T>::FromFd(UniqueFd fd, Access access,
                                          Options options) {
  return AttachAll(Segment::FromFd(std::move(fd), access), options);
}

template <SharedMemorySafe T>
absl::StatusOr<Array<T>> Array<T>::Create(absl::string_view name, size_t count,
                                          Options options) {
  absl::StatusOr<Array> array = absl::UnknownError("not attached");
  const absl::StatusOr<Segment> segment = Segment::Create(
      name, ExactBytes(count, options), [&](const Segment& unnamed) {
        array = Attach(unnamed, 0, count, options);
        return array.status();
      });
  if (!segment.ok()) return segment.status();
  return array;
}

template <SharedMemorySafe T>
absl::StatusOr<Array<T>> Array<T>::Open(absl::string_view name, Access access,
                                        Options options) {
  return AttachAll(Segment::Open(name, access), options);
}

template <SharedMemorySafe T>
absl::StatusOr<Array<T>> Array<T>::AttachAll(absl::StatusOr<Segment> segment,
                                             Options options) {
  if (!segment.ok()) return segment.status();
  const size_t bytes = segment->bytes().size();
  const size_t others = ExactBytes(0, options);
  const size_t count = bytes < others ? 0 : (bytes - others) / sizeof(T);
  return Attach(*std::move(segment), 0, count, options);
}

template <SharedMemorySafe T>
absl::StatusOr<Array<T>> Array<T>::Attach(Segment segment, size_t offset,
                                          size_t count, Options options) {
  const uint64_t hash = internal::LayoutHash<T>("Array", count);
  // Up to the end of the last element, without what SizeBytes adds to it: that
  // need not be there.
  const absl::StatusOr<std::byte*> object = internal::AttachObject(
      segment, offset,
      {"Array", sizeof(T), count, ExactBytes(count, options),
       options.undo == 0 ? hash : internal::Hash(hash, options.undo)});
  if (!object.ok()) return object.status();
  return Array(std::move(segment), *object, count, options);
}

template <SharedMemorySafe T>
absl::StatusOr<typename Array<T>::Guard> Array<T>::Lock(
    absl::Duration timeout) {
  auto hold =
      internal::ArrayHold::Acquire(segment_, *header(), undo(), timeout);
  if (!hold.ok()) return hold.status();
  return Guard(*std::move(hold), absl::MakeSpan(elements(), size_));
}

template <SharedMemorySafe T>
absl::StatusOr<absl::Span<T>> Array<T>::Guard::Protect(size_t first,
                                                       size_t count) {
  if (first > span_.size() || count > span_.size() - first) {
    return absl::OutOfRangeError(
        absl::StrCat("protecting ", count, " elements from ", first,
                     " on of an Array of ", span_.size()));
  }
  if (auto status = hold_.Protect(first * sizeof(T), count * sizeof(T));
      !status.ok()) {
    return status;
  }
  return span_.subspan(first, count);
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
  absl::Status status = internal::CopySnapshot(
      segment_, *header(), reinterpret_cast<const std::byte*>(elements()),
      size_ * sizeof(T), to.data());
  if constexpr (std::same_as<T, bool>) {
    for (bool& element : to) element = ToValid(element);
  }
  return status;
}

template <SharedMemorySafe T>
absl::StatusOr<typename Array<T>::Guard> Array<T>::LockElement(
    size_t index, absl::Duration timeout) {
  if (index >= size_) {
    return absl::OutOfRangeError(absl::StrCat(
        "element ", index, " of an Array of ", size_, ", fd ", fd()));
  }
  absl::StatusOr<Guard> guard = Lock(timeout);
  if (guard.ok() && guard->previous_owner_died() && !guard->rolled_back()) {
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
  return ToValid(guard->span()[index]);
}

template <SharedMemorySafe T>
absl::Status Array<T>::Set(size_t index, const T& value,
                           absl::Duration timeout) {
  absl::StatusOr<Guard> guard = LockElement(index, timeout);
  if (!guard.ok()) return guard.status();
  if (options_.undo != 0) {
    if (auto element = guard->Protect(index, 1); !element.ok()) {
      return element.status();
    }
  }
  guard->span()[index] = value;
  return absl::OkStatus();
}

}  // namespace ipc::shm

#endif  // IPC_SHM_ARRAY_H_
