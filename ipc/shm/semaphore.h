// Semaphores in shared memory: a number of units, of which each Acquire takes
// one, or waits until there is one. Python's multiprocessing.Semaphore and
// BoundedSemaphore.
//
// Example, units as a resource, such as eight connections:
//
//   auto connections = BoundedSemaphore::CreateAnonymous(8);
//   {
//     absl::StatusOr<Permit> permit = connections->Acquire(absl::Seconds(1));
//     if (!permit.ok()) return permit.status();
//     ... use one ...
//   }  // gives it back; if we are killed before, others get it nevertheless
//
// Example, units as a signal, such as "one more is ready":
//
//   auto ready = Semaphore::CreateAnonymous(0);
//   ready->Release();                            // in one process
//   ready->Acquire()->Consume();                 // in another one
//
// What holds, whoever is killed and wherever:
// 1. No unit is lost or doubled. Those of a process that was killed go back
//    within 15 ms of somebody waiting for one; as many of those who then get
//    one are told so, by Permit::previous_owner_died(). If one is killed while
//    it is told, or while it finds the dead, somebody may be told once more.
// 2. Consume and Release are done or not done.
// 3. No system call while nobody has to wait. Not fair.
// 4. Only Acquire ever waits. Release and Consume, of a semaphore and of a
//    Permit, and so its destructor, take no lock: they end whoever is stopped,
//    and wherever.
//
// Python's acquire is Acquire and Consume, its release is Release; but then a
// unit dies with its process, as there.
//
// Thread safety: all members may be called from any thread and process; a
// Permit is for one thread at a time. Lifetime: a semaphore is a view that
// keeps its segment mapped, and copies are cheap; so does a Permit. Fork: a
// child does not hold what its parent holds.
//
// How: a table of how many units each process holds, and the number that was
// released less those consumed; what is there follows from these. Only the
// owner changes its entry: it takes units under a lock that outlives its
// holder, and gives them back without.
#ifndef IPC_SHM_SEMAPHORE_H_
#define IPC_SHM_SEMAPHORE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/base/participants.h"
#include "ipc/shm/monitor.h"
#include "ipc/shm/placed.h"
#include "ipc/shm/segment.h"

namespace ipc::shm {
namespace internal {

// All bytes zero is a semaphore with the units it begins with.
struct SemaphoreHeader {
  std::atomic<uint64_t> layout;  // see ipc/shm/layout.h
  Monitor monitor;
  // Units released less those consumed. Changed without the lock.
  std::atomic<int64_t> added;
  // These two under the lock.
  std::atomic<uint64_t> inherited;   // of the dead, and nobody was told yet
  std::atomic<uint32_t> holder_end;  // more than any index used; only grows
  uint32_t reserved;
  // How many units a participant holds: its epoch << 32 | the number. Under the
  // lock it raises its own, and others clear that of a dead one; it lowers it
  // without.
  std::atomic<uint64_t> holdings[Segment::kMaxParticipants];
};
static_assert(sizeof(SemaphoreHeader) == 64 + 8 * Segment::kMaxParticipants);

// Both kinds, and what a Permit needs.
class SemaphoreCore {
 public:
  // As in Python, and in POSIX (SEM_VALUE_MAX).
  static constexpr uint64_t kMaxValue = 0x7fffffff;

  SemaphoreCore(Segment segment, std::byte* object, uint64_t initial)
      : segment_(std::move(segment)),
        header_(reinterpret_cast<SemaphoreHeader*>(object)),
        initial_(static_cast<int64_t>(initial)) {}

  // Returns who holds the unit now, and whether it is a dead one's.
  struct Unit {
    Participant holder;
    bool inherited;
  };
  absl::StatusOr<Unit> Acquire(absl::Duration timeout);
  // A unit that `holder` has: given back, or taken for good.
  absl::Status GiveBack(Participant holder, bool consume);
  // FailedPrecondition if there would be more than `max`.
  absl::Status Add(uint64_t count, uint64_t max);
  uint64_t Available() const;

 private:
  uint64_t Held() const;
  // Takes from the dead; returns whether there were any.
  bool Inherit() const;
  int64_t available() const;

  Segment segment_;
  SemaphoreHeader* header_;
  int64_t initial_;
};

}  // namespace internal

// One unit, given back when destroyed. Move-only.
class Permit {
 public:
  Permit(Permit&& other) noexcept
      : core_(std::move(other.core_)),
        unit_(other.unit_),
        held_(std::exchange(other.held_, false)) {}
  Permit& operator=(Permit&&) = delete;
  ~Permit() { Release().IgnoreError(); }

  // Whether somebody was killed while it held a unit, and this is told of that.
  bool previous_owner_died() const { return unit_.inherited; }

  // Gives it back now. FailedPrecondition if it was given back or consumed.
  absl::Status Release() { return End(/*consume=*/false); }
  // Takes it for good: it is back when somebody calls Release of the semaphore.
  // FailedPrecondition as Release. Neither waits.
  absl::Status Consume() { return End(/*consume=*/true); }

 private:
  friend class Semaphore;
  friend class BoundedSemaphore;
  Permit(const internal::SemaphoreCore& core,
         internal::SemaphoreCore::Unit unit)
      : core_(core), unit_(unit) {}
  absl::Status End(bool consume);

  internal::SemaphoreCore core_;
  internal::SemaphoreCore::Unit unit_;
  bool held_ = true;
};

class Semaphore : public internal::Placed<Semaphore> {
 public:
  // What it takes in a user area.
  static constexpr size_t SizeBytes(uint64_t = 0) {
    return sizeof(internal::SemaphoreHeader);
  }

  // The one at `offset` of the user area, with `initial` units if nobody has
  // used it yet; the same number for all. Errors as Mutex::Attach;
  // InvalidArgument for more than 2^31-1.
  static absl::StatusOr<Semaphore> Attach(const Segment& segment, size_t offset,
                                          uint64_t initial);

  // DeadlineExceeded if there is none for so long; PermissionDenied if the
  // segment is mapped for reading.
  absl::StatusOr<Permit> Acquire(
      absl::Duration timeout = absl::InfiniteDuration());

  // So many units more. FailedPrecondition if there would be more than 2^31-1;
  // PermissionDenied if the segment is mapped for reading. Does not wait.
  absl::Status Release(uint64_t count = 1);

  // About how many could be taken now: those of the dead only if that was
  // noticed. Does not wait; OK always, also if the segment is mapped for
  // reading.
  absl::StatusOr<uint64_t> Available() const { return core_.Available(); }

 private:
  Semaphore(const Segment& segment, std::byte* object, uint64_t initial)
      : Placed(segment, object), core_(segment, object, initial) {}

  internal::SemaphoreCore core_;
};

// The same, except that there are never more units than it began with.
class BoundedSemaphore : public internal::Placed<BoundedSemaphore> {
 public:
  static constexpr size_t SizeBytes(uint64_t = 0) {
    return sizeof(internal::SemaphoreHeader);
  }
  static absl::StatusOr<BoundedSemaphore> Attach(const Segment& segment,
                                                 size_t offset, uint64_t units);

  absl::StatusOr<Permit> Acquire(
      absl::Duration timeout = absl::InfiniteDuration());

  // Brings back units that were consumed. FailedPrecondition if fewer were.
  absl::Status Release(uint64_t count = 1);

  absl::StatusOr<uint64_t> Available() const { return core_.Available(); }

 private:
  BoundedSemaphore(const Segment& segment, std::byte* object, uint64_t units)
      : Placed(segment, object), core_(segment, object, units), units_(units) {}

  internal::SemaphoreCore core_;
  uint64_t units_;
};

}  // namespace ipc::shm

#endif  // IPC_SHM_SEMAPHORE_H_
