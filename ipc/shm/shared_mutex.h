// A readers-writer lock in shared memory, that outlives whoever holds it: many
// readers at a time, or one writer.
//
// Example:
//
//   absl::StatusOr<SharedMutex> mutex = SharedMutex::CreateAnonymous();
//   {
//     auto guard = mutex->LockShared();      // or std::shared_lock
//     if (!guard.ok()) return guard.status();
//     ... read ...
//   }
//   {
//     auto guard = mutex->Lock(absl::Seconds(1));  // or std::unique_lock
//     if (!guard.ok()) return guard.status();
//     if (guard->previous_owner_died()) Repair();
//     ... write ...
//   }
//
// What holds, whoever is killed and wherever:
// 1. While somebody holds it exclusively, nobody else holds it at all. Who is
//    slow or stopped keeps it.
// 2. The death of a holder is noticed within 10 ms by whoever waits. After that
//    of a writer previous_owner_died() is true for all readers, and for writers
//    up to the first one that lives to unlock. That of a reader is told nobody:
//    it has changed nothing.
// 3. No system call while nobody has to wait.
//
// A writer that waits keeps new readers out; so a thread that reads must not
// lock a second time, be it shared: it would wait for the writer, which waits
// for it. Readers may be kept waiting by writers that come one after the other.
//
// How: writers take a RobustLock. Each process has a count of its own of those
// in it that read, in a cache line of its own, so readers of different
// processes do not slow each other down ("Big-reader locks", as in Linux 2.4's
// brlock). A reader raises its count and then looks for a writer; a writer
// takes the lock and then waits for each count to become zero: one of the two
// sees the other. That makes 16 KiB, and a writer look at one line for each
// process that has ever read.
//
// Fork, threads, lifetime: as with Mutex (ipc/shm/mutex.h).
#ifndef IPC_SHM_SHARED_MUTEX_H_
#define IPC_SHM_SHARED_MUTEX_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/base/participants.h"
#include "ipc/shm/placed.h"
#include "ipc/shm/robust_lock.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/std_lockable.h"

namespace ipc::shm {
namespace internal {

// Those of one process that read.
//
//    63          32  31      30              0
//   +--------------+-------+-----------------+
//   | its epoch    |waiting|      count      |
//   +--------------+-------+-----------------+
//
// `waiting`: a writer sleeps on the lower half and is woken when the count
// becomes zero. Changed by that process, and by a writer that sets `waiting` or
// clears what a dead one has left.
struct alignas(64) ReaderCount {
  std::atomic<uint64_t> word;
};

// All bytes zero is one that nobody holds.
struct SharedMutexHeader {
  std::atomic<uint64_t> layout;  // see ipc/shm/layout.h
  RobustLock writer;
  // At least one more than the index of any process that has read; only grows.
  std::atomic<uint32_t> reader_end;
  uint32_t reserved[9];
  ReaderCount readers[Segment::kMaxParticipants];
};
static_assert(sizeof(SharedMutexHeader) ==
              64 * (1 + Segment::kMaxParticipants));

}  // namespace internal

class SharedMutex : public internal::Placed<SharedMutex>,
                    public internal::StdSharedLockable<SharedMutex> {
 public:
  class Guard;
  class SharedGuard;

  // What it takes in a user area.
  static constexpr size_t SizeBytes() {
    return sizeof(internal::SharedMutexHeader);
  }

  // As Mutex::Attach.
  static absl::StatusOr<SharedMutex> Attach(Segment segment, size_t offset);

  // DeadlineExceeded if others keep it for so long; PermissionDenied if the
  // segment is mapped for reading.
  absl::StatusOr<Guard> Lock(absl::Duration timeout = absl::InfiniteDuration());
  absl::StatusOr<SharedGuard> LockShared(
      absl::Duration timeout = absl::InfiniteDuration());

  // The same without a Guard: Unlock or UnlockShared has to follow.
  // FailedPrecondition if this process does not hold it.
  absl::Status AcquireFor(absl::Duration timeout);
  absl::Status Unlock();
  absl::Status AcquireSharedFor(absl::Duration timeout);
  absl::Status UnlockShared();

  // For a holder: whether a writer died.
  bool previous_owner_died() const { return header()->writer.IsDirty(); }

 private:
  SharedMutex(Segment segment, std::byte* object)
      : Placed(std::move(segment), object) {}

  internal::SharedMutexHeader* header() const {
    return reinterpret_cast<internal::SharedMutexHeader*>(object());
  }
  bool Enter(Participant self);
  bool Leave(Participant self);
  absl::Status AwaitReaders(Deadline deadline);
  absl::Status AwaitReader(uint32_t index, Deadline deadline);
  absl::Status NotHeld() const;
};

// Holds it exclusively until destroyed. Move-only.
class SharedMutex::Guard {
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

  bool previous_owner_died() const { return mutex_->previous_owner_died(); }

 private:
  friend class SharedMutex;
  explicit Guard(SharedMutex* mutex) : mutex_(mutex) {
    mutex_->segment().GetSelf(&owner_);
  }

  SharedMutex* mutex_;
  Participant owner_;  // who we are while we hold it
};

// Holds it with other readers until destroyed. Move-only.
class SharedMutex::SharedGuard {
 public:
  SharedGuard(SharedGuard&& other) noexcept
      : mutex_(std::exchange(other.mutex_, nullptr)), owner_(other.owner_) {}
  SharedGuard& operator=(SharedGuard&&) = delete;
  // In a forked child it does nothing, whatever that holds itself.
  ~SharedGuard() {
    if (mutex_ != nullptr && mutex_->segment().IsSelf(owner_)) {
      mutex_->unlock_shared();
    }
  }

  bool previous_owner_died() const { return mutex_->previous_owner_died(); }

 private:
  friend class SharedMutex;
  explicit SharedGuard(SharedMutex* mutex) : mutex_(mutex) {
    mutex_->segment().GetSelf(&owner_);
  }

  SharedMutex* mutex_;
  Participant owner_;  // who we are while we hold it
};

}  // namespace ipc::shm

#endif  // IPC_SHM_SHARED_MUTEX_H_
