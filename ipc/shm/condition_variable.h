// A ConditionVariable in shared memory: those who hold a Mutex (or a
// RecursiveMutex) wait for another one to change what it guards, as Python's
// multiprocessing.Condition.
//
// Example:
//
//   absl::StatusOr<Mutex> mutex = Mutex::Attach(segment, 0);
//   auto changed = ConditionVariable::Attach(segment, Mutex::SizeBytes());
//   {
//     const std::lock_guard<Mutex> lock(*mutex);
//     absl::StatusOr<bool> ready = changed->Wait(
//         *mutex, [&] { return state->ready; }, absl::Seconds(5));
//   }
//   ... in another process:
//   {
//     const std::lock_guard<Mutex> lock(*mutex);
//     state->ready = true;
//     changed->NotifyAll();
//   }
//
// What holds, whoever is killed and wherever:
// 1. Notify(n) lets exactly n of those who wait return, those who have waited
//    longest, or all if there are fewer; nobody returns without, and nobody who
//    came after it. Those who were killed waiting do not count.
// 2. If one is killed between being notified and returning, be it that it has
//    to wait for the mutex, its notification goes to another one who waited at
//    that time and does still, within 10 ms. If the one who notifies is killed,
//    each of the n was notified or was not. If one is killed that passes on the
//    notification of a dead one, two may return for it, never none.
// 3. Nobody who returns, be it for a time-out, lacks the mutex. That its holder
//    died meanwhile is told by the mutex's previous_owner_died().
//
// To be sure to be noticed, notify while holding the mutex, or after having
// changed the state under it. At most kMaxWaiters can wait at a time, with
// those who were notified and wait for the mutex.
//
// How: who waits enters itself in a table, by a compare-and-swap that carries
// its owner, and sleeps on its own word there, at most 10 ms at a time. It
// stays there, notified, until it has the mutex.
//
// Thread safety: all members may be called from any thread and process.
// Lifetime: a view that keeps its segment mapped; copies are cheap.
#ifndef IPC_SHM_CONDITION_VARIABLE_H_
#define IPC_SHM_CONDITION_VARIABLE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/base/participants.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/placed.h"
#include "ipc/shm/recursive_mutex.h"
#include "ipc/shm/segment.h"

namespace ipc::shm {
namespace internal {

// One who waits.
//
//    63          32 31      12 11        2 1      0
//   +--------------+----------+-----------+--------+
//   | owner epoch  |  ticket  | index + 1 | state  |   all zero: free
//   +--------------+----------+-----------+--------+
//
//   free        -CAS-> claimed      by its owner, which then sets the ticket
//   claimed     ---->  waiting      by its owner
//   waiting     -CAS-> notified     by anybody: the notification
//   waiting     -CAS-> free         by its owner, after a time-out
//   notified    -CAS-> free         by its owner: it returns
//   of the dead -CAS-> free         by anybody, unless it is notified
//   notified and dead  -CAS-> notified, of another owner, which notifies a
//                                   further one and then frees it
//
// The ticket, as much of it as there is room for, tells a waiter from an
// earlier one of the same process at the same place.
struct Waiter {
  std::atomic<uint64_t> word;
  std::atomic<uint64_t> ticket;  // who waits longer has the lower one
  // Only those with tickets before this may have the notification. Only grows
  // while one waits.
  std::atomic<uint64_t> limit;
};

inline constexpr uint32_t kMaxWaiters = 256;

// All bytes zero is one for which nobody waits.
struct ConditionVariableHeader {
  std::atomic<uint64_t> layout;       // see ipc/shm/layout.h
  std::atomic<uint64_t> next_ticket;  // only grows
  std::atomic<uint32_t> waiter_end;   // more than any index used; only grows
  uint32_t reserved[11];
  Waiter waiters[kMaxWaiters];
};
static_assert(sizeof(ConditionVariableHeader) == 64 + 24 * kMaxWaiters);
static_assert(sizeof(ConditionVariableHeader) % Segment::kAlignment == 0);

}  // namespace internal

class ConditionVariable : public internal::Placed<ConditionVariable> {
 public:
  static constexpr uint32_t kMaxWaiters = internal::kMaxWaiters;

  // What it takes in a user area.
  static constexpr size_t SizeBytes() {
    return sizeof(internal::ConditionVariableHeader);
  }

  // As Mutex::Attach.
  static absl::StatusOr<ConditionVariable> Attach(Segment segment,
                                                  size_t offset);

  // Gives `mutex` back, waits to be notified, and takes it again, however long
  // that takes; a RecursiveMutex as deep as it was. DeadlineExceeded if nobody
  // has notified it within this time. With other errors nothing was waited for:
  // FailedPrecondition if the caller does not hold `mutex`, ResourceExhausted
  // if kMaxWaiters that live do wait.
  absl::Status Wait(Mutex& mutex,
                    absl::Duration timeout = absl::InfiniteDuration());
  absl::Status Wait(RecursiveMutex& mutex,
                    absl::Duration timeout = absl::InfiniteDuration());

  // Waits until `predicate` says true, which is asked under the mutex, first of
  // all. Returns what it said last: false after a time-out.
  template <typename M, typename Predicate>
  absl::StatusOr<bool> Wait(M& mutex, Predicate predicate,
                            absl::Duration timeout = absl::InfiniteDuration());

  // Returns how many were notified. PermissionDenied if the segment is mapped
  // for reading.
  absl::StatusOr<uint32_t> Notify(uint32_t count = 1);
  absl::StatusOr<uint32_t> NotifyAll() { return Notify(UINT32_MAX); }

 private:
  ConditionVariable(Segment segment, std::byte* object)
      : Placed(std::move(segment), object) {}

  internal::ConditionVariableHeader* header() const {
    return reinterpret_cast<internal::ConditionVariableHeader*>(object());
  }
  // Of one who waits.
  struct Place {
    internal::Waiter* waiter;
    uint64_t waiting;  // its word before it is notified
  };
  uint32_t waiter_end() const;
  absl::Status WaitUnlocked(absl::FunctionRef<absl::Status()> unlock,
                            absl::FunctionRef<absl::Status()> relock,
                            absl::Duration timeout);
  absl::StatusOr<Place> Enter(Participant self);
  bool Await(const Place& place, Participant self, Deadline deadline);
  void GiveUp(const Place& place);
  bool NotifyOne(uint64_t limit);
  bool IsDead(uint64_t word) const;
  bool ExpelIfDead(internal::Waiter& waiter, Participant self);
  int ExpelDead(Participant self);
  void PassOn(Participant self);
};

// Implementation details follow.

template <typename M, typename Predicate>
absl::StatusOr<bool> ConditionVariable::Wait(M& mutex, Predicate predicate,
                                             absl::Duration timeout) {
  const Deadline deadline = Deadline::After(timeout);
  while (!predicate()) {
    const absl::Status status = Wait(mutex, deadline.Remaining());
    if (absl::IsDeadlineExceeded(status)) return bool{predicate()};
    if (!status.ok()) return status;
  }
  return true;
}

}  // namespace ipc::shm

#endif  // IPC_SHM_CONDITION_VARIABLE_H_
