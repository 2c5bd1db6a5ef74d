#include "ipc/shm/condition_variable.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "ipc/base/futex.h"
#include "ipc/base/spin_wait.h"
#include "ipc/shm/layout.h"

namespace ipc::shm {
namespace {

using internal::Waiter;

constexpr uint64_t kClaimed = 1;
constexpr uint64_t kWaiting = 2;
constexpr uint64_t kNotified = 3;
constexpr uint64_t kState = 3;

constexpr absl::Duration kPark = absl::Milliseconds(10);

constexpr uint64_t Pack(Participant owner, uint64_t state) {
  return uint64_t{owner.epoch} << 32 | (uint64_t{owner.index} + 1) << 2 | state;
}
// An index out of range, which nobody has, if the word is nonsense.
constexpr Participant OwnerOf(uint64_t word) {
  return {(static_cast<uint32_t>(word) >> 2) - 1,
          static_cast<uint32_t>(word >> 32)};
}

const std::atomic<uint32_t>& LowerHalf(const std::atomic<uint64_t>& word) {
  static_assert(std::endian::native == std::endian::little);
  return reinterpret_cast<const std::atomic<uint32_t>&>(word);
}

}  // namespace

absl::StatusOr<ConditionVariable> ConditionVariable::Attach(Segment segment,
                                                            size_t offset) {
  const absl::StatusOr<std::byte*> object =
      Find(segment, offset, SizeBytes(), "ConditionVariable",
           internal::LayoutHash("ConditionVariable", kMaxWaiters));
  if (!object.ok()) return object.status();
  return ConditionVariable(std::move(segment), *object);
}

absl::Status ConditionVariable::Wait(Mutex& mutex, absl::Duration timeout) {
  const absl::StatusOr<Participant> self = segment().Self();
  if (!self.ok()) return self.status();
  const Deadline deadline = Deadline::After(timeout);
  const absl::StatusOr<Waiter*> waiter = Enter(*self);
  if (!waiter.ok()) return waiter.status();
  if (absl::Status status = mutex.Unlock(); !status.ok()) {
    (*waiter)->word.store(0);
    return status;
  }
  const bool notified = Await(**waiter, *self, deadline);
  absl::Status status = mutex.AcquireFor(absl::InfiniteDuration());
  if (!status.ok() || notified) return status;
  return absl::DeadlineExceededError("waiting for a ConditionVariable");
}

absl::Status ConditionVariable::Wait(RecursiveMutex& mutex,
                                     absl::Duration timeout) {
  const absl::StatusOr<Participant> self = segment().Self();
  if (!self.ok()) return self.status();
  const Deadline deadline = Deadline::After(timeout);
  const absl::StatusOr<Waiter*> waiter = Enter(*self);
  if (!waiter.ok()) return waiter.status();
  const uint32_t depth = mutex.UnlockAll();
  if (depth == 0) {
    (*waiter)->word.store(0);
    return absl::FailedPreconditionError(
        absl::StrCat("waiting for a ConditionVariable, fd ", fd(),
                     ": this thread does not hold the RecursiveMutex"));
  }
  const bool notified = Await(**waiter, *self, deadline);
  absl::Status status = mutex.Relock(depth);
  if (!status.ok() || notified) return status;
  return absl::DeadlineExceededError("waiting for a ConditionVariable");
}

uint32_t ConditionVariable::waiter_end() const {
  // A peer may have written anything. Acquire pairs with the release in Enter:
  // who is told of, under a mutex or otherwise, is seen.
  const uint32_t end = header()->waiter_end.load(std::memory_order_acquire);
  return end < kMaxWaiters ? end : kMaxWaiters;
}

absl::StatusOr<Waiter*> ConditionVariable::Enter(Participant self) {
  internal::ConditionVariableHeader& header = *this->header();
  do {
    for (uint32_t i = 0; i < kMaxWaiters; ++i) {
      Waiter& waiter = header.waiters[i];
      uint64_t word = waiter.word.load(std::memory_order_relaxed);
      if (word != 0 ||
          !waiter.word.compare_exchange_strong(word, Pack(self, kClaimed),
                                               std::memory_order_relaxed)) {
        continue;
      }
      // Relaxed: what is unique about it is all that counts, and it is
      // published by the CAS below.
      waiter.ticket.store(
          header.next_ticket.fetch_add(1, std::memory_order_relaxed),
          std::memory_order_relaxed);
      uint32_t end = header.waiter_end.load(std::memory_order_relaxed);
      while (end <= i && !header.waiter_end.compare_exchange_weak(
                             end, i + 1, std::memory_order_release,
                             std::memory_order_relaxed)) {
      }
      // Release pairs with the acquire in NotifyOne. Whoever holds the mutex
      // after us sees it anyhow.
      waiter.word.store(Pack(self, kWaiting), std::memory_order_release);
      return &waiter;
    }
  } while (ExpelDead() > 0);
  return absl::ResourceExhaustedError(
      absl::StrCat("waiting for a ConditionVariable, fd ", fd(), ": ",
                   kMaxWaiters, " wait already"));
}

// Returns whether it was notified, and has freed the place.
bool ConditionVariable::Await(Waiter& waiter, Participant self,
                              Deadline deadline) {
  const uint64_t waiting = Pack(self, kWaiting);
  // Acquire, here and below, pairs with the release in NotifyOne.
  const auto is_notified = [&] {
    return waiter.word.load(std::memory_order_acquire) != waiting;
  };
  if (!deadline.HasPassed()) {
    static SpinHistory history;
    SpinWait spin(&history, /*peer_cpu=*/-1);
    while (!is_notified() && spin.Next()) {
    }
    if (is_notified()) spin.Succeeded();
  }
  while (!is_notified()) {
    uint64_t seen = waiting;
    // Relaxed: it lets go of nothing but its own place.
    if (deadline.HasPassed() && waiter.word.compare_exchange_strong(
                                    seen, 0, std::memory_order_relaxed)) {
      return false;
    }
    FutexWait(LowerHalf(waiter.word), static_cast<uint32_t>(waiting),
              Deadline::Earlier(deadline, Deadline::After(kPark)));
    if (!is_notified()) PassOn();
  }
  uint64_t notified = Pack(self, kNotified);
  // Should it fail, a peer has scribbled over it or held us for dead, and the
  // place is another one's.
  waiter.word.compare_exchange_strong(notified, 0, std::memory_order_relaxed);
  return true;
}

absl::StatusOr<uint32_t> ConditionVariable::Notify(uint32_t count) {
  if (!segment().writable()) return segment().Self().status();
  // Those who come later are not meant, even if they come without end.
  uint32_t notified = 0;
  while (notified < count && notified < kMaxWaiters && NotifyOne()) ++notified;
  return notified;
}

// The one that lives and has waited longest. False if there is none.
bool ConditionVariable::NotifyOne() {
  internal::ConditionVariableHeader& header = *this->header();
  while (true) {
    Waiter* longest = nullptr;
    uint64_t word = 0;
    uint64_t ticket = 0;
    for (uint32_t i = 0, end = waiter_end(); i < end; ++i) {
      Waiter& waiter = header.waiters[i];
      // Acquire pairs with the release in Enter: the ticket is its own.
      const uint64_t seen = waiter.word.load(std::memory_order_acquire);
      if ((seen & kState) != kWaiting) continue;
      const uint64_t its = waiter.ticket.load(std::memory_order_relaxed);
      if (longest == nullptr || static_cast<int64_t>(its - ticket) < 0) {
        longest = &waiter;
        word = seen;
        ticket = its;
      }
    }
    if (longest == nullptr) return false;
    const uint64_t notified = word | kNotified;
    // Release pairs with the acquire in Await.
    if (!longest->word.compare_exchange_strong(word, notified,
                                               std::memory_order_release,
                                               std::memory_order_relaxed)) {
      continue;  // gone, or notified by another one
    }
    if (FutexWake(LowerHalf(longest->word), 1) == 1) return true;
    // It has not slept: it is about to, or it is dead.
    if (!IsDead(notified)) return true;
    uint64_t dead = notified;
    longest->word.compare_exchange_strong(dead, 0, std::memory_order_relaxed);
  }
}

bool ConditionVariable::IsDead(uint64_t word) const {
  return segment().IsDead(OwnerOf(word));
}

int ConditionVariable::ExpelDead() {
  int expelled = 0;
  for (uint32_t i = 0, end = waiter_end(); i < end; ++i) {
    if (ExpelIfDead(header()->waiters[i])) ++expelled;
  }
  return expelled;
}

bool ConditionVariable::ExpelIfDead(Waiter& waiter) {
  uint64_t word = waiter.word.load(std::memory_order_relaxed);
  if (word == 0 || !IsDead(word)) return false;
  if (!waiter.word.compare_exchange_strong(word, 0,
                                           std::memory_order_relaxed)) {
    return false;
  }
  // If we are killed here, that notification dies with us: as if it had come
  // when we were the next in turn.
  if ((word & kState) == kNotified) NotifyOne();
  return true;
}

// What was meant for one that has died since is another one's.
void ConditionVariable::PassOn() {
  for (uint32_t i = 0, end = waiter_end(); i < end; ++i) {
    Waiter& waiter = header()->waiters[i];
    if ((waiter.word.load(std::memory_order_relaxed) & kState) == kNotified) {
      ExpelIfDead(waiter);
    }
  }
}

}  // namespace ipc::shm
