// A Value<T> is one T that several processes read and write.
//
// Example:
//
//   absl::StatusOr<Value<int64_t>> score = Value<int64_t>::CreateAnonymous(7);
//   ... grant score->fd() to another process; there:
//   auto score = Value<int64_t>::FromFd(std::move(fd));
//   score->Update([](int64_t n) { return n + 1; }).status();
//   ... and a reader that follows it:
//   for (uint64_t seen = score->version();;) {
//     Show(*score->Load());  // at least as new as `seen`
//     absl::StatusOr<uint64_t> now = score->WaitForChange(seen);
//     if (!now.ok()) return now.status();
//     seen = *now;
//   }
//
// What holds, whoever is killed and wherever:
// 1. Load gives a T that somebody stored, or zeroes if nobody has: never a mix.
// 2. A Load that begins after a Store has returned gives that T or a later one,
//    for all who know that it has returned: by another Value, a lock or a
//    message. Up to 8 bytes that is all; a Store may then be seen by others
//    some nanoseconds after the Loads which come next in its process. So if two
//    processes each Store to one Value and then Load the other's, both may see
//    the old one. If that matters, store by Update, which does not return
//    before it is seen.
// 3. A dead writer blocks nobody. What it was storing is stored or is not.
// 4. A writer that is stopped in the midst of Store keeps other writers waiting
//    (DeadlineExceeded), for it is alive, but no reader; and nobody at all if T
//    has 8 bytes or less.
//
// How: up to 8 bytes, one atomic word, and a Store is a plain store. More, four
// copies, of which writers fill an unused one under a lock that outlives its
// owner, and then flip to it with one store (ipc/shm/versioned_copies.h): 64 +
// 4 * sizeof(T) bytes, rounded up. No system call but to wake somebody who
// waits, or when writers collide.
//
// The order of Stores of one process is that of everybody: a Load that sees a
// T also sees what its writer wrote elsewhere before.
//
// T: see ipc/shm/shared_memory_safe.h and, for structs, LayoutId in layout.h.
// Thread safety: all members may be called from any thread and process.
// Lifetime: a Value is a view that keeps its segment mapped; copies are cheap.
#ifndef IPC_SHM_VALUE_H_
#define IPC_SHM_VALUE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/utility/utility.h"
#include "ipc/base/asymmetric_fence.h"
#include "ipc/base/deadline.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/layout.h"
#include "ipc/shm/robust_lock.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/shared_memory_safe.h"
#include "ipc/shm/value_layout.h"
#include "ipc/shm/version_signal.h"
#include "ipc/shm/versioned_copies.h"

namespace ipc::shm {

template <SharedMemorySafe T>
class Value {
 public:
  // What it takes in a user area, a multiple of Segment::kAlignment.
  static constexpr size_t SizeBytes();

  // A Value in a segment of its own. `initial` is its version 1.
  static absl::StatusOr<Value> CreateAnonymous(const T& initial = T());
  // The Value that another process created so; errors as Segment::FromFd and
  // Attach.
  static absl::StatusOr<Value> FromFd(UniqueFd fd,
                                      Access access = Access::kReadWrite);
  // The same under a name, which has its first value when it has that; errors
  // as Segment::Create and Open. Segment::Unlink removes the name.
  static absl::StatusOr<Value> Create(absl::string_view name,
                                      const T& initial = T());
  static absl::StatusOr<Value> Open(absl::string_view name,
                                    Access access = Access::kReadWrite);
  // The Value at `offset` of the user area, all zero if nobody has stored yet.
  // FailedPrecondition if something else is there or it does not fit;
  // InvalidArgument if `offset` is not a multiple of Segment::kAlignment.
  // Objects that overlap partly are not found out.
  static absl::StatusOr<Value> Attach(Segment segment, size_t offset);

  // Never waits for a writer. Always OK up to 8 bytes; otherwise Unavailable if
  // thousands of tries in a row were lapped, which only a peer that stores
  // without end and on purpose can do.
  absl::StatusOr<T> Load() const;
  // The same into memory of the caller's, which saves a large T a copy. With an
  // error, what is in there is garbage.
  absl::Status LoadInto(T& to) const;

  // Waits only for other writers of more than 8 bytes. PermissionDenied if the
  // segment is mapped for reading; DeadlineExceeded if another writer that is
  // alive was storing all the while; Aborted if a peer took the lock away.
  absl::Status Store(const T& value,
                     absl::Duration timeout = absl::InfiniteDuration());

  // Stores `fn` of the current value, with no other store in between; returns
  // what it stored. Up to 8 bytes, `fn` may be called repeatedly, until the
  // time-out (DeadlineExceeded) if others store each time while it runs; beyond
  // that, once, while other writers wait, so it must be quick and not touch
  // this Value. Errors as Store and Load.
  template <typename Fn>
  absl::StatusOr<T> Update(Fn fn,
                           absl::Duration timeout = absl::InfiniteDuration());

  // For WaitForChange: another number whenever the value is another one. Above
  // 8 bytes it counts the Stores, 0 if there was none, modulo 2^64. Up to 8
  // bytes it means nothing in itself, and to store the same value again, or
  // another one and then the same, changes nothing.
  uint64_t version() const {
    // Acquire pairs with the release in VersionSignal.
    return header()->signal.word.load(std::memory_order_acquire);
  }

  // Waits until the version is not `seen_version` and returns it.
  // DeadlineExceeded if it stays. Several Stores may be seen as one. If the
  // segment is mapped for reading, a change may be noticed 20 ms late.
  absl::StatusOr<uint64_t> WaitForChange(
      uint64_t seen_version,
      absl::Duration timeout = absl::InfiniteDuration()) const;

  // Owned by the segment; for other processes' FromFd if that holds nothing but
  // this Value.
  int fd() const { return segment_.fd(); }
  const Segment& segment() const { return segment_; }

 private:
  static constexpr bool kIsSmall = sizeof(T) <= sizeof(uint64_t);

  static uint64_t ToBits(const T& value);
  static T FromBits(uint64_t bits);

  Value(Segment segment, std::byte* object)
      : segment_(std::move(segment)),
        object_(object),
        signal_(segment_.writable() ? &header()->signal : nullptr) {}

  internal::ValueHeader* header() const {
    return reinterpret_cast<internal::ValueHeader*>(object_);
  }
  internal::VersionedCopies copies() const {
    return {object_ + sizeof(internal::ValueHeader), sizeof(T),
            header()->signal};
  }
  absl::StatusOr<internal::RobustLockHold> LockWriters(absl::Duration timeout);
  absl::Status Commit(internal::RobustLockHold hold, const T& value);

  Segment segment_;
  std::byte* object_;  // ValueHeader, copies
  // Of header(); null if the segment is mapped for reading.
  internal::VersionSignal* signal_;
};

// Implementation details follow.

template <SharedMemorySafe T>
constexpr size_t Value<T>::SizeBytes() {
  using internal::VersionedCopies;
  static_assert(sizeof(T) < SIZE_MAX / 8);
  return sizeof(internal::ValueHeader) +
         (kIsSmall ? 0
                   : VersionedCopies::kCopies *
                         VersionedCopies::CopySize(sizeof(T)));
}

template <SharedMemorySafe T>
absl::StatusOr<Value<T>> Value<T>::CreateAnonymous(const T& initial) {
  absl::StatusOr<Segment> segment = Segment::CreateAnonymous(SizeBytes());
  if (!segment.ok()) return segment.status();
  absl::StatusOr<Value> value = Attach(*std::move(segment), 0);
  if (!value.ok()) return value.status();
  if (auto status = value->Store(initial); !status.ok()) return status;
  return value;
}

template <SharedMemorySafe T>
absl::StatusOr<Value<T>> Value<T>::FromFd(UniqueFd fd, Access access) {
  absl::StatusOr<Segment> segment = Segment::FromFd(std::move(fd), access);
  if (!segment.ok()) return segment.status();
  return Attach(*std::move(segment), 0);
}

template <SharedMemorySafe T>
absl::StatusOr<Value<T>> Value<T>::Create(absl::string_view name,
                                          const T& initial) {
  absl::StatusOr<Value> value = absl::UnknownError("not attached");
  const absl::StatusOr<Segment> segment =
      Segment::Create(name, SizeBytes(), [&](const Segment& unnamed) {
        value = Attach(unnamed, 0);
        return value.ok() ? value->Store(initial) : value.status();
      });
  if (!segment.ok()) return segment.status();
  return value;
}

template <SharedMemorySafe T>
absl::StatusOr<Value<T>> Value<T>::Open(absl::string_view name, Access access) {
  absl::StatusOr<Segment> segment = Segment::Open(name, access);
  if (!segment.ok()) return segment.status();
  return Attach(*std::move(segment), 0);
}

template <SharedMemorySafe T>
absl::StatusOr<Value<T>> Value<T>::Attach(Segment segment, size_t offset) {
  constexpr uint64_t kLayout = internal::LayoutHash<T>("Value", 1);
  const absl::StatusOr<std::byte*> object = internal::AttachObject(
      segment, offset, {"Value", sizeof(T), 1, SizeBytes(), kLayout});
  if (!object.ok()) return object.status();
  EnableLightFence();
  return Value(std::move(segment), *object);
}

template <SharedMemorySafe T>
absl::StatusOr<T> Value<T>::Load() const {
  if constexpr (kIsSmall) {
    // Acquire pairs with the release in VersionSignal.
    return FromBits(header()->signal.word.load(std::memory_order_acquire));
  } else {
    absl::StatusOr<T> value(absl::in_place);
    if (auto status = LoadInto(*value); !status.ok()) return status;
    return value;
  }
}

template <SharedMemorySafe T>
absl::Status Value<T>::LoadInto(T& to) const {
  if constexpr (kIsSmall) {
    to = *Load();
  } else if (!copies().Load(&to)) {
    return absl::UnavailableError(absl::StrCat(
        "loading a Value of ", sizeof(T), " bytes, fd ", fd(),
        ": it is stored to faster than it can be read; try again"));
  }
  return absl::OkStatus();
}

template <SharedMemorySafe T>
absl::Status Value<T>::Store(const T& value, absl::Duration timeout) {
  if constexpr (kIsSmall) {
    if (signal_ == nullptr) [[unlikely]]
      return segment_.Self().status();
    signal_->Publish(ToBits(value));
    return absl::OkStatus();
  } else {
    auto hold = LockWriters(timeout);
    if (!hold.ok()) return hold.status();
    return Commit(*std::move(hold), value);
  }
}

template <SharedMemorySafe T>
template <typename Fn>
absl::StatusOr<T> Value<T>::Update(Fn fn, absl::Duration timeout) {
  if constexpr (kIsSmall) {
    if (!segment_.writable()) return segment_.Self().status();
    uint64_t bits = version();
    // Set when it is first needed: who meets nobody does not ask for the time.
    std::optional<Deadline> deadline;
    while (true) {
      const T value = fn(FromBits(bits));
      if (header()->signal.Exchange(&bits, ToBits(value))) return value;
      if (!deadline.has_value()) {
        deadline = Deadline::After(timeout);
      } else if (deadline->HasPassed()) {
        return absl::DeadlineExceededError(
            absl::StrCat("updating a Value, fd ", fd(),
                         ": others store to it all the while"));
      }
    }
  } else {
    auto hold = LockWriters(timeout);
    if (!hold.ok()) return hold.status();
    absl::StatusOr<T> value = Load();
    if (!value.ok()) return value;
    *value = fn(static_cast<const T&>(*value));
    if (auto status = Commit(*std::move(hold), *value); !status.ok()) {
      return status;
    }
    return value;
  }
}

template <SharedMemorySafe T>
absl::StatusOr<uint64_t> Value<T>::WaitForChange(uint64_t seen_version,
                                                 absl::Duration timeout) const {
  const Deadline deadline = Deadline::After(timeout);
  internal::VersionSignal& signal = header()->signal;
  while (!signal.Park(seen_version, deadline, segment_.writable())) {
    if (deadline.HasPassed()) {
      return absl::DeadlineExceededError(
          absl::StrCat("waiting for a Value, fd ", fd(), ", to change from ",
                       "version ", seen_version));
    }
  }
  return version();
}

template <SharedMemorySafe T>
uint64_t Value<T>::ToBits(const T& value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(value));
  return bits;
}

template <SharedMemorySafe T>
T Value<T>::FromBits(uint64_t bits) {
  if constexpr (std::same_as<T, bool>) {
    return bits != 0;  // a peer's 2 would be neither true nor false
  } else {
    T value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }
}

template <SharedMemorySafe T>
absl::StatusOr<internal::RobustLockHold> Value<T>::LockWriters(
    absl::Duration timeout) {
  return internal::RobustLockHold::Acquire(segment_, header()->lock, timeout);
}

template <SharedMemorySafe T>
absl::Status Value<T>::Commit(internal::RobustLockHold hold, const T& value) {
  // A writer that died here has at worst half filled a copy that is not valid,
  // the very one that is filled now.
  hold.MarkConsistent();
  copies().Store(&value);
  if (hold.Release()) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat(
      "storing to a Value, fd ", fd(),
      ": another process took the writers' lock away; do not trust it"));
}

}  // namespace ipc::shm

#endif  // IPC_SHM_VALUE_H_
