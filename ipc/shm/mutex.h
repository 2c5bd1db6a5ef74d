// A Mutex in shared memory, that outlives whoever holds it: if a process is
// killed while it has the lock, the next one gets it and is told.
//
// Example:
//
//   absl::StatusOr<Mutex> mutex = Mutex::CreateAnonymous();
//   ... grant mutex->fd() to another process, which calls Mutex::FromFd ...
//   {
//     absl::StatusOr<Mutex::Guard> guard = mutex->Lock(absl::Seconds(1));
//     if (!guard.ok()) return guard.status();
//     if (guard->previous_owner_died()) Repair();
//     ... what the mutex guards ...
//   }
//   std::scoped_lock both(*mutex, *other);  // or as with std::timed_mutex
//
// What holds, whoever is killed and wherever:
// 1. One holder at a time, of all threads of all processes. A holder that is
//    slow or stopped keeps the lock.
// 2. The death of one is noticed within 10 ms by whoever waits. The next holder
//    then is told by previous_owner_died(), and no other one, unless that one
//    dies as well. It may be told though the dead one had changed nothing,
//    never the reverse. (Array, which guards data of its own, goes on telling
//    until somebody says MarkConsistent.)
// 3. No system call to lock and unlock while nobody else wants to.
//
// Not recursive: a thread that locks twice waits for itself. Not fair. The lock
// belongs to the process: a thread must not end while it has it. Only its
// holder's process can unlock it; for Python's Lock, which anybody may release,
// take BoundedSemaphore with one unit. Fork: a child does not hold what its
// parent holds, and a Guard that it inherits does nothing there; but one of
// std, such as std::lock_guard, gives back what the child then holds itself, if
// it does.
//
// Thread safety: all members may be called from any thread and process.
// Lifetime: a Mutex is a view that keeps its segment mapped; copies are cheap.
// A Guard must not outlive the Mutex that gave it.
//
// How: see ipc/shm/robust_lock.h.
#ifndef IPC_SHM_MUTEX_H_
#define IPC_SHM_MUTEX_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/participants.h"
#include "ipc/shm/placed.h"
#include "ipc/shm/robust_lock.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/std_lockable.h"

namespace ipc::shm {
namespace internal {

// All bytes zero is a Mutex that nobody holds.
struct MutexHeader {
  std::atomic<uint64_t> layout;  // see ipc/shm/layout.h
  RobustLock lock;
  uint64_t reserved[5];
};
static_assert(sizeof(MutexHeader) == 64);

}  // namespace internal

class Mutex : public internal::Placed<Mutex>,
              public internal::StdLockable<Mutex> {
 public:
  class Guard;

  // What it takes in a user area.
  static constexpr size_t SizeBytes() { return sizeof(internal::MutexHeader); }

  // The Mutex at `offset` of the user area. FailedPrecondition if something
  // else is there or it does not fit; InvalidArgument if `offset` is not a
  // multiple of Segment::kAlignment.
  static absl::StatusOr<Mutex> Attach(Segment segment, size_t offset);

  // DeadlineExceeded if others keep it for so long; PermissionDenied if the
  // segment is mapped for reading.
  absl::StatusOr<Guard> Lock(absl::Duration timeout = absl::InfiniteDuration());

  // The same without a Guard: Unlock has to follow.
  absl::Status AcquireFor(absl::Duration timeout) {
    Participant self;
    if (segment().GetSelf(&self) && lock_word().TryAcquire(self)) {
      return absl::OkStatus();
    }
    return AcquireContended(timeout);
  }
  // FailedPrecondition if this process does not hold it.
  absl::Status Unlock() {
    Participant self;
    if (segment().GetSelf(&self) && lock_word().TryRelease(self)) {
      return absl::OkStatus();
    }
    return UnlockContended();
  }

  // For the holder: whether it was told.
  bool previous_owner_died() const { return lock_word().IsDirty(); }

 private:
  Mutex(Segment segment, std::byte* object)
      : Placed(std::move(segment), object) {}

  internal::RobustLock& lock_word() const {
    return reinterpret_cast<internal::MutexHeader*>(object())->lock;
  }
  absl::Status AcquireContended(absl::Duration timeout);
  absl::Status UnlockContended();
};

// Holds a Mutex until destroyed. Move-only.
class Mutex::Guard {
 public:
  Guard(Guard&& other) noexcept
      : mutex_(std::exchange(other.mutex_, nullptr)), owner_(other.owner_) {}
  Guard& operator=(Guard&&) = delete;
  // In a forked child it does nothing, whatever that holds itself.
  ~Guard() {
    if (mutex_ != nullptr && mutex_->segment().IsSelf(owner_)) {
      mutex_->unlock();
    }
  }

  // Whether a process died while it had the lock, just before.
  bool previous_owner_died() const { return mutex_->previous_owner_died(); }

 private:
  friend class Mutex;
  explicit Guard(Mutex* mutex) : mutex_(mutex) {
    mutex_->segment().GetSelf(&owner_);
  }

  Mutex* mutex_;
  Participant owner_;  // who we are while we hold it
};

// Implementation details follow.

inline absl::StatusOr<Mutex::Guard> Mutex::Lock(absl::Duration timeout) {
  absl::Status status = AcquireFor(timeout);
  if (!status.ok()) return status;
  return Guard(this);
}

}  // namespace ipc::shm

#endif  // IPC_SHM_MUTEX_H_
