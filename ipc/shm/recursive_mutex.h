// A Mutex that the thread which holds it may lock again, as Python's RLock: it
// is free when it was unlocked as often as it was locked.
//
// Example:
//
//   absl::StatusOr<RecursiveMutex> mutex = RecursiveMutex::CreateAnonymous();
//   const std::lock_guard<RecursiveMutex> outer(*mutex);
//   const std::lock_guard<RecursiveMutex> inner(*mutex);
//
// Everything else is as with Mutex (ipc/shm/mutex.h): who is killed holding it
// at whatever depth leaves it to the next one, which is told. Threads are told
// apart by gettid(2), so a thread must not end while it has the lock.
//
// A process that attaches to the segment twice, by two Segments that are no
// copies of each other, is two participants, each with a hold of its own: a
// thread that locks by one of them and then by the other waits for itself.
#ifndef IPC_SHM_RECURSIVE_MUTEX_H_
#define IPC_SHM_RECURSIVE_MUTEX_H_

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

// All bytes zero is one that nobody holds.
struct RecursiveMutexHeader {
  std::atomic<uint64_t> layout;  // see ipc/shm/layout.h
  RobustLock lock;
  // The thread that holds the lock, or 0; of a dead holder, or between taking
  // and giving back, whatever the last one left.
  //
  //    63           32 31      22 21        0
  //   +---------------+----------+-----------+
  //   | owner epoch   |  index   | thread id |
  //   +---------------+----------+-----------+
  //
  // Only the thread itself writes its own name, while it holds the lock, and
  // nobody else ever has the same. So who finds it holds the lock.
  std::atomic<uint64_t> thread;
  std::atomic<uint32_t> depth;  // written by the holder only
  uint32_t reserved[7];
};
static_assert(sizeof(RecursiveMutexHeader) == 64);

}  // namespace internal

class RecursiveMutex : public internal::Placed<RecursiveMutex>,
                       public internal::StdLockable<RecursiveMutex> {
 public:
  class Guard;

  // What it takes in a user area.
  static constexpr size_t SizeBytes() {
    return sizeof(internal::RecursiveMutexHeader);
  }

  // As Mutex::Attach.
  static absl::StatusOr<RecursiveMutex> Attach(Segment segment, size_t offset);

  // As Mutex::Lock; ResourceExhausted if this thread has locked it 2^32-1
  // times.
  absl::StatusOr<Guard> Lock(absl::Duration timeout = absl::InfiniteDuration());

  // The same without a Guard: Unlock has to follow.
  absl::Status AcquireFor(absl::Duration timeout);
  // Once. FailedPrecondition if this thread does not hold it.
  absl::Status Unlock();

  // For the holder: whether it was told, at any depth.
  bool previous_owner_died() const { return header()->lock.IsDirty(); }
  // How many times this thread holds it.
  uint32_t depth() const;

  // For ConditionVariable: gives it back whatever the depth, which it returns,
  // 0 if this thread does not hold it; and takes it again as deep.
  uint32_t UnlockAll();
  absl::Status Relock(uint32_t depth);

 private:
  RecursiveMutex(Segment segment, std::byte* object)
      : Placed(std::move(segment), object) {}

  internal::RecursiveMutexHeader* header() const {
    return reinterpret_cast<internal::RecursiveMutexHeader*>(object());
  }
  bool IsHeldByThisThread(Participant self) const;
  void Release(Participant self);
  absl::Status NotHeld() const;
};

// Holds it, once, until destroyed. Move-only.
class RecursiveMutex::Guard {
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
  friend class RecursiveMutex;
  explicit Guard(RecursiveMutex* mutex) : mutex_(mutex) {
    mutex_->segment().GetSelf(&owner_);
  }

  RecursiveMutex* mutex_;
  Participant owner_;  // who we are while we hold it
};

}  // namespace ipc::shm

#endif  // IPC_SHM_RECURSIVE_MUTEX_H_
