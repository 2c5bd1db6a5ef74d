#include "ipc/shm/semaphore.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "ipc/shm/layout.h"

namespace ipc::shm {
namespace internal {
namespace {

constexpr uint32_t EpochOf(uint64_t holding) {
  return static_cast<uint32_t>(holding >> 32);
}
constexpr uint32_t CountOf(uint64_t holding) {
  return static_cast<uint32_t>(holding);
}
constexpr uint64_t Pack(uint32_t epoch, uint32_t count) {
  return uint64_t{epoch} << 32 | count;
}

// For what is changed under the monitor's lock only, which orders it; or where
// a compare-and-swap follows. Relaxed.
template <typename T>
T Get(const std::atomic<T>& word) {
  return word.load(std::memory_order_relaxed);
}
template <typename T>
void Set(std::atomic<T>& word, T value) {
  word.store(value, std::memory_order_relaxed);
}

}  // namespace

// How many are held; never less than at the time of the return, as more are
// held under the lock only. REQUIRES, for that: the lock is held.
uint64_t SemaphoreCore::Held() const {
  uint64_t held = 0;
  const uint32_t end =
      std::min(Get(header_->holder_end), Segment::kMaxParticipants);
  for (uint32_t index = 0; index < end; ++index) {
    // Seq_cst, for MonitorScope::Announce; and acquire, as part of that, pairs
    // with the release in GiveBack: what came before it is seen.
    held += CountOf(header_->holdings[index].load());
  }
  return held;
}

int64_t SemaphoreCore::available() const {
  // First what is held. A unit that is consumed in between is missing then; the
  // other way round it would be there twice. Unsigned: a peer may have written
  // anything.
  const uint64_t held = Held();
  return static_cast<int64_t>(static_cast<uint64_t>(initial_) +
                              static_cast<uint64_t>(header_->added.load()) -
                              held);
}

bool SemaphoreCore::Inherit() const {
  bool found = false;
  const uint32_t end =
      std::min(Get(header_->holder_end), Segment::kMaxParticipants);
  for (uint32_t index = 0; index < end; ++index) {
    uint64_t holding = Get(header_->holdings[index]);
    if (CountOf(holding) == 0 || !segment_.IsDead({index, EpochOf(holding)})) {
      continue;
    }
    // In this order: if we die in between, somebody is told once too often.
    Set(header_->inherited, Get(header_->inherited) + CountOf(holding));
    // Relaxed: it ended before the kernel said so. Fails if a peer has
    // scribbled over it.
    found |= header_->holdings[index].compare_exchange_strong(
        holding, Pack(EpochOf(holding), 0), std::memory_order_relaxed);
  }
  return found;
}

absl::StatusOr<SemaphoreCore::Unit> SemaphoreCore::Acquire(
    absl::Duration timeout) {
  const Deadline deadline = Deadline::After(timeout);
  MonitorScope scope(segment_, header_->monitor, deadline);
  for (bool first = true; scope.status().ok(); first = false) {
    if (available() > 0) break;
    if ((first || scope.IsTimeToProbe()) && Inherit() && available() > 0) break;
    if (deadline.HasPassed()) {
      return absl::DeadlineExceededError(absl::StrCat(
          "acquiring a semaphore in shm segment, fd ", segment_.fd(), ": ",
          Held(), " units are held by processes that live"));
    }
    // Units are given back without the lock, also meanwhile.
    scope.Announce();
    if (available() > 0) break;
    scope.Wait(deadline, deadline);
  }
  if (!scope.status().ok()) return scope.status();
  const Participant self = scope.self();
  if (Get(header_->holder_end) <= self.index) {
    Set(header_->holder_end, self.index + 1);
  }
  std::atomic<uint64_t>& holding = header_->holdings[self.index];
  uint64_t seen = Get(holding);
  if (CountOf(seen) != 0 && EpochOf(seen) != self.epoch) {
    // Of one who is dead: we have its index.
    Set(header_->inherited, Get(header_->inherited) + CountOf(seen));
  }
  const uint64_t inherited = Get(header_->inherited);
  // This is it. Not by a store: our threads give back without the lock.
  while (!holding.compare_exchange_weak(
      seen, EpochOf(seen) == self.epoch ? seen + 1 : Pack(self.epoch, 1))) {
  }
  if (inherited != 0) Set(header_->inherited, inherited - 1);
  return Unit{self, inherited != 0};
}

absl::Status SemaphoreCore::GiveBack(Participant holder, bool consume) {
  // In a forked child: the parent's.
  if (!segment_.IsSelf(holder)) {
    return absl::FailedPreconditionError("this process does not hold the unit");
  }
  // For good, first of all: that is it. Whoever looks before it is given back
  // finds one too few, and is woken then.
  if (consume) header_->added.fetch_sub(1);
  std::atomic<uint64_t>& holding = header_->holdings[holder.index];
  uint64_t seen = Get(holding);
  do {
    if (EpochOf(seen) != holder.epoch || CountOf(seen) == 0) {
      if (consume) header_->added.fetch_add(1);
      return absl::AbortedError(
          absl::StrCat("semaphore in shm segment, fd ", segment_.fd(),
                       ": another process took the unit away; do not trust "
                       "it"));
    }
    // Seq_cst, for Wake; and release, as part of that, pairs with the acquire
    // in Held.
  } while (!holding.compare_exchange_weak(seen, seen - 1));
  header_->monitor.Wake();
  return absl::OkStatus();
}

absl::Status SemaphoreCore::Add(uint64_t count, uint64_t max) {
  if (!segment_.writable()) return segment_.Self().status();
  int64_t added = Get(header_->added);
  do {
    const int64_t units = static_cast<int64_t>(static_cast<uint64_t>(initial_) +
                                               static_cast<uint64_t>(added));
    if (units < 0 || static_cast<uint64_t>(units) > max ||
        count > max - static_cast<uint64_t>(units)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "releasing ", count, " units of a semaphore in shm segment, fd ",
          segment_.fd(), ", which has ", units, " of at most ", max));
    }
    // Seq_cst, as in GiveBack.
  } while (!header_->added.compare_exchange_weak(
      added, added + static_cast<int64_t>(count)));
  header_->monitor.Wake();
  return absl::OkStatus();
}

uint64_t SemaphoreCore::Available() const {
  return static_cast<uint64_t>(std::max<int64_t>(available(), 0));
}

namespace {

absl::Status CheckUnits(uint64_t units) {
  if (units <= SemaphoreCore::kMaxValue) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "a semaphore of ", units, " units: at most ", SemaphoreCore::kMaxValue));
}

}  // namespace
}  // namespace internal

absl::Status Permit::End(bool consume) {
  if (!std::exchange(held_, false)) {
    return absl::FailedPreconditionError(
        "the unit was given back or consumed already");
  }
  return core_.GiveBack(unit_.holder, consume);
}

absl::StatusOr<Semaphore> Semaphore::Attach(const Segment& segment,
                                            size_t offset, uint64_t initial) {
  if (auto status = internal::CheckUnits(initial); !status.ok()) return status;
  const absl::StatusOr<std::byte*> object =
      Find(segment, offset, SizeBytes(), "Semaphore",
           internal::LayoutHash("Semaphore/2", initial));
  if (!object.ok()) return object.status();
  return Semaphore(segment, *object, initial);
}

absl::StatusOr<Permit> Semaphore::Acquire(absl::Duration timeout) {
  const auto unit = core_.Acquire(timeout);
  if (!unit.ok()) return unit.status();
  return Permit(core_, *unit);
}

absl::Status Semaphore::Release(uint64_t count) {
  return core_.Add(count, internal::SemaphoreCore::kMaxValue);
}

absl::StatusOr<BoundedSemaphore> BoundedSemaphore::Attach(
    const Segment& segment, size_t offset, uint64_t units) {
  if (auto status = internal::CheckUnits(units); !status.ok()) return status;
  const absl::StatusOr<std::byte*> object =
      Find(segment, offset, SizeBytes(), "BoundedSemaphore",
           internal::LayoutHash("BoundedSemaphore/2", units));
  if (!object.ok()) return object.status();
  return BoundedSemaphore(segment, *object, units);
}

absl::StatusOr<Permit> BoundedSemaphore::Acquire(absl::Duration timeout) {
  const auto unit = core_.Acquire(timeout);
  if (!unit.ok()) return unit.status();
  return Permit(core_, *unit);
}

absl::Status BoundedSemaphore::Release(uint64_t count) {
  return core_.Add(count, units_);
}

}  // namespace ipc::shm
