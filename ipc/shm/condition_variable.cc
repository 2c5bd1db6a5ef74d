#include "ipc/shm/condition_variable.h"

#include <bit>

#include "absl/functional/function_ref.h"
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

constexpr int kIndexBits = 10;
static_assert(Segment::kMaxParticipants < uint32_t{1} << kIndexBits);

constexpr absl::Duration kPark = absl::Milliseconds(10);

// How often all places may be found taken anew, after the dead were expelled.
constexpr int kRounds = 4;

constexpr uint64_t Pack(Participant owner, uint64_t ticket, uint64_t state) {
  return uint64_t{owner.epoch} << 32 |
         (ticket << (kIndexBits + 2) & 0xffffffff) |
         (uint64_t{owner.index} + 1) << 2 | state;
}
// An index out of range, which nobody has, if the word is nonsense.
constexpr Participant OwnerOf(uint64_t word) {
  return {(static_cast<uint32_t>(word) >> 2) % (1 << kIndexBits) - 1,
          static_cast<uint32_t>(word >> 32)};
}

// Tickets may wrap around.
constexpr bool IsBefore(uint64_t a, uint64_t b) {
  return static_cast<int64_t>(a - b) < 0;
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
           internal::LayoutHash("ConditionVariable/2", kMaxWaiters));
  if (!object.ok()) return object.status();
  return ConditionVariable(std::move(segment), *object);
}

absl::Status ConditionVariable::Wait(Mutex& mutex, absl::Duration timeout) {
  return WaitUnlocked(
      [&] { return mutex.Unlock(); },
      [&] { return mutex.AcquireFor(absl::InfiniteDuration()); }, timeout);
}

absl::Status ConditionVariable::Wait(RecursiveMutex& mutex,
                                     absl::Duration timeout) {
  uint32_t depth = 0;
  const auto unlock = [&] {
    depth = mutex.UnlockAll();
    if (depth != 0) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("waiting for a ConditionVariable, fd ", fd(),
                     ": this thread does not hold the RecursiveMutex"));
  };
  return WaitUnlocked(
      unlock, [&] { return mutex.Relock(depth); }, timeout);
}

absl::Status ConditionVariable::WaitUnlocked(
    absl::FunctionRef<absl::Status()> unlock,
    absl::FunctionRef<absl::Status()> relock, absl::Duration timeout) {
  const absl::StatusOr<Participant> self = segment().Self();
  if (!self.ok()) return self.status();
  const Deadline deadline = Deadline::After(timeout);
  const absl::StatusOr<Place> place = Enter(*self);
  if (!place.ok()) return place.status();
  if (absl::Status status = unlock(); !status.ok()) {
    GiveUp(*place);
    return status;
  }
  const bool notified = Await(*place, *self, deadline);
  // It stays notified until it has the mutex: if it is killed before, the
  // notification is another one's.
  absl::Status status = relock();
  if (!status.ok()) {
    if (notified) GiveUp(*place);
    return status;
  }
  if (!notified) {
    return absl::DeadlineExceededError("waiting for a ConditionVariable");
  }
  // Should it fail, a peer has scribbled over it or held us for dead, and the
  // place is another one's. Relaxed: it lets go of nothing but its own place.
  uint64_t word = place->waiting | kNotified;
  place->waiter->word.compare_exchange_strong(word, 0,
                                              std::memory_order_relaxed);
  return absl::OkStatus();
}

uint32_t ConditionVariable::waiter_end() const {
  // A peer may have written anything. Acquire pairs with the release in Enter:
  // who is told of, under a mutex or otherwise, is seen.
  const uint32_t end = header()->waiter_end.load(std::memory_order_acquire);
  return end < kMaxWaiters ? end : kMaxWaiters;
}

absl::StatusOr<ConditionVariable::Place> ConditionVariable::Enter(
    Participant self) {
  internal::ConditionVariableHeader& header = *this->header();
  for (int round = 0; round < kRounds; ++round) {
    for (uint32_t i = 0; i < kMaxWaiters; ++i) {
      Waiter& waiter = header.waiters[i];
      uint64_t word = waiter.word.load(std::memory_order_relaxed);
      if (word != 0 ||
          !waiter.word.compare_exchange_strong(word, Pack(self, 0, kClaimed),
                                               std::memory_order_relaxed)) {
        continue;
      }
      // Relaxed: what is unique about it is all that counts, and it is
      // published by the store below.
      const uint64_t ticket =
          header.next_ticket.fetch_add(1, std::memory_order_relaxed);
      waiter.ticket.store(ticket, std::memory_order_relaxed);
      waiter.limit.store(ticket, std::memory_order_relaxed);
      uint32_t end = header.waiter_end.load(std::memory_order_relaxed);
      while (end <= i && !header.waiter_end.compare_exchange_weak(
                             end, i + 1, std::memory_order_release,
                             std::memory_order_relaxed)) {
      }
      // Release pairs with the acquire in NotifyOne. Whoever holds the mutex
      // after us sees it anyhow.
      const uint64_t waiting = Pack(self, ticket, kWaiting);
      waiter.word.store(waiting, std::memory_order_release);
      return Place{&waiter, waiting};
    }
    if (ExpelDead(self) == 0) break;
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("waiting for a ConditionVariable, fd ", fd(), ": ",
                   kMaxWaiters, " wait already"));
}

// Returns whether it was notified. If not, it has freed the place.
bool ConditionVariable::Await(const Place& place, Participant self,
                              Deadline deadline) {
  Waiter& waiter = *place.waiter;
  // Acquire, here and below, pairs with the release in NotifyOne.
  const auto is_notified = [&] {
    return waiter.word.load(std::memory_order_acquire) != place.waiting;
  };
  if (!deadline.HasPassed()) {
    static SpinHistory history;
    SpinWait spin(&history, /*peer_cpu=*/-1);
    while (!is_notified() && spin.Next()) {
    }
    if (is_notified()) spin.Succeeded();
  }
  while (!is_notified()) {
    uint64_t seen = place.waiting;
    // Relaxed: it lets go of nothing but its own place.
    if (deadline.HasPassed() && waiter.word.compare_exchange_strong(
                                    seen, 0, std::memory_order_relaxed)) {
      return false;
    }
    FutexWait(LowerHalf(waiter.word), static_cast<uint32_t>(place.waiting),
              Deadline::Earlier(deadline, Deadline::After(kPark)));
    if (!is_notified()) PassOn(self);
  }
  return true;
}

// Frees the place of one who returns without having waited. If it was notified
// meanwhile, that was meant for another one.
void ConditionVariable::GiveUp(const Place& place) {
  uint64_t seen = place.waiting;
  // Acquire pairs with the release in NotifyOne.
  if (place.waiter->word.compare_exchange_strong(seen, 0,
                                                 std::memory_order_acquire) ||
      seen != (place.waiting | kNotified)) {
    return;
  }
  NotifyOne(place.waiter->limit.load(std::memory_order_relaxed));
  place.waiter->word.compare_exchange_strong(seen, 0,
                                             std::memory_order_relaxed);
}

absl::StatusOr<uint32_t> ConditionVariable::Notify(uint32_t count) {
  if (!segment().writable()) return segment().Self().status();
  // Those who come later are not meant, such as one that was notified here and
  // waits once more. Relaxed: whoever we know of has its ticket.
  const uint64_t limit = header()->next_ticket.load(std::memory_order_relaxed);
  uint32_t notified = 0;
  while (notified < count && notified < kMaxWaiters && NotifyOne(limit)) {
    ++notified;
  }
  return notified;
}

// The one that lives and has waited longest, of those with a ticket before
// `limit`. False if there is none.
bool ConditionVariable::NotifyOne(uint64_t limit) {
  internal::ConditionVariableHeader& header = *this->header();
  // Whom we try in vain is not to be tried again, as it comes back with a later
  // ticket: there are no more rounds, unless a peer writes rubbish.
  for (uint32_t round = 0; round <= kMaxWaiters; ++round) {
    Waiter* longest = nullptr;
    uint64_t word = 0;
    uint64_t ticket = limit;
    for (uint32_t i = 0, end = waiter_end(); i < end; ++i) {
      Waiter& waiter = header.waiters[i];
      // Acquire pairs with the release in Enter: the ticket is its own, or one
      // that came later.
      const uint64_t seen = waiter.word.load(std::memory_order_acquire);
      if ((seen & kState) != kWaiting) continue;
      const uint64_t its = waiter.ticket.load(std::memory_order_relaxed);
      if (!IsBefore(its, ticket)) continue;
      longest = &waiter;
      word = seen;
      ticket = its;
    }
    if (longest == nullptr) return false;
    // First, so that who passes it on knows. Another one that notifies may have
    // written a later one, and then either of us notifies it.
    uint64_t old = longest->limit.load(std::memory_order_relaxed);
    while (IsBefore(old, limit) && !longest->limit.compare_exchange_weak(
                                       old, limit, std::memory_order_relaxed)) {
    }
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
    if (!longest->word.compare_exchange_strong(dead, 0,
                                               std::memory_order_relaxed)) {
      return true;  // another one passes it on
    }
  }
  return false;
}

bool ConditionVariable::IsDead(uint64_t word) const {
  return segment().IsDead(OwnerOf(word));
}

int ConditionVariable::ExpelDead(Participant self) {
  int expelled = 0;
  // Not up to waiter_end: one may have died before it had raised that.
  for (Waiter& waiter : header()->waiters) {
    if (ExpelIfDead(waiter, self)) ++expelled;
  }
  return expelled;
}

bool ConditionVariable::ExpelIfDead(Waiter& waiter, Participant self) {
  // Acquire pairs with the release in NotifyOne, for `limit`.
  uint64_t word = waiter.word.load(std::memory_order_acquire);
  if (word == 0 || !IsDead(word)) return false;
  if ((word & kState) != kNotified) {
    return waiter.word.compare_exchange_strong(word, 0,
                                               std::memory_order_relaxed);
  }
  // The place is ours until its notification is passed on, so that it does not
  // die with us. If we are killed having done so, it is passed on once more.
  uint64_t ours = Pack(self, 0, kNotified);
  if (!waiter.word.compare_exchange_strong(word, ours,
                                           std::memory_order_relaxed)) {
    return false;
  }
  NotifyOne(waiter.limit.load(std::memory_order_relaxed));
  waiter.word.compare_exchange_strong(ours, 0, std::memory_order_relaxed);
  return true;
}

// What was meant for one that has died since is another one's.
void ConditionVariable::PassOn(Participant self) {
  for (uint32_t i = 0, end = waiter_end(); i < end; ++i) {
    Waiter& waiter = header()->waiters[i];
    if ((waiter.word.load(std::memory_order_relaxed) & kState) == kNotified) {
      ExpelIfDead(waiter, self);
    }
  }
}

}  // namespace ipc::shm
