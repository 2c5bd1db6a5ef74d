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

// Every access is relaxed: the monitor's lock orders them.
template <typename T>
T Get(const std::atomic<T>& word) {
  return word.load(std::memory_order_relaxed);
}
template <typename T>
void Set(std::atomic<T>& word, T value) {
  word.store(value, std::memory_order_relaxed);
}

}  // namespace

// The truth is `added` and `holdings`, each changed by one store; `held` is
// computed from them where a holder of the lock has died in between.
void SemaphoreCore::Repair() const {
  uint64_t held = 0;
  for (const std::atomic<uint64_t>& holding : header_->holdings) {
    held += CountOf(Get(holding));
  }
  Set(header_->held, held);
}

int64_t SemaphoreCore::available() const {
  // Unsigned: a peer may have written anything.
  return static_cast<int64_t>(static_cast<uint64_t>(initial_) +
                              static_cast<uint64_t>(Get(header_->added)) -
                              Get(header_->held));
}

bool SemaphoreCore::Inherit() const {
  bool found = false;
  const uint32_t end =
      std::min(Get(header_->holder_end), Segment::kMaxParticipants);
  for (uint32_t index = 0; index < end; ++index) {
    const uint64_t holding = Get(header_->holdings[index]);
    if (CountOf(holding) == 0 || !segment_.IsDead({index, EpochOf(holding)})) {
      continue;
    }
    // In this order: if we die in between, somebody is told once too often.
    Set(header_->inherited, Get(header_->inherited) + CountOf(holding));
    Set(header_->holdings[index], Pack(EpochOf(holding), 0));
    found = true;
  }
  if (found) Repair();
  return found;
}

absl::StatusOr<SemaphoreCore::Unit> SemaphoreCore::Acquire(
    absl::Duration timeout) {
  const Deadline deadline = Deadline::After(timeout);
  MonitorScope scope(segment_, header_->monitor, deadline,
                     [this] { Repair(); });
  while (scope.status().ok()) {
    if (available() > 0 || (Inherit() && available() > 0)) break;
    if (deadline.HasPassed()) {
      return absl::DeadlineExceededError(absl::StrCat(
          "acquiring a semaphore in shm segment, fd ", segment_.fd(), ": ",
          Get(header_->held), " units are held by processes that live"));
    }
    scope.Wait(deadline, deadline, [this] { Repair(); });
  }
  if (!scope.status().ok()) return scope.status();
  const Participant self = scope.self();
  std::atomic<uint64_t>& holding = header_->holdings[self.index];
  const uint64_t before = Get(holding);
  uint32_t count = CountOf(before);
  if (count != 0 && EpochOf(before) != self.epoch) {
    // Of one who is dead: we have its index.
    Set(header_->inherited, Get(header_->inherited) + count);
    Set(header_->held, Get(header_->held) - count);
    count = 0;
  }
  if (Get(header_->holder_end) <= self.index) {
    Set(header_->holder_end, self.index + 1);
  }
  const uint64_t inherited = Get(header_->inherited);
  // This is it.
  Set(holding, Pack(self.epoch, count + 1));
  Set(header_->held, Get(header_->held) + 1);
  if (inherited != 0) Set(header_->inherited, inherited - 1);
  return Unit{self, inherited != 0};
}

absl::Status SemaphoreCore::GiveBack(Participant holder, bool consume) {
  // In a forked child: the parent's.
  if (!segment_.IsSelf(holder)) {
    return absl::FailedPreconditionError("this process does not hold the unit");
  }
  MonitorScope scope(segment_, header_->monitor, Deadline::Infinite(),
                     [this] { Repair(); });
  if (!scope.status().ok()) return scope.status();
  std::atomic<uint64_t>& holding = header_->holdings[holder.index];
  const uint64_t before = Get(holding);
  if (EpochOf(before) != holder.epoch || CountOf(before) == 0) {
    return absl::AbortedError(
        absl::StrCat("semaphore in shm segment, fd ", segment_.fd(),
                     ": another process took the unit away; do not trust it"));
  }
  // This is it; if we die before `added`, it is given back and not consumed.
  Set(holding, before - 1);
  Set(header_->held, Get(header_->held) - 1);
  if (consume) {
    // Unsigned, as in available().
    Set(header_->added,
        static_cast<int64_t>(static_cast<uint64_t>(Get(header_->added)) - 1));
  } else {
    scope.Wake();
  }
  return absl::OkStatus();
}

absl::Status SemaphoreCore::Add(uint64_t count, uint64_t max) {
  MonitorScope scope(segment_, header_->monitor, Deadline::Infinite(),
                     [this] { Repair(); });
  if (!scope.status().ok()) return scope.status();
  const int64_t added = Get(header_->added);
  const int64_t units = static_cast<int64_t>(static_cast<uint64_t>(initial_) +
                                             static_cast<uint64_t>(added));
  if (units < 0 || static_cast<uint64_t>(units) > max ||
      count > max - static_cast<uint64_t>(units)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "releasing ", count, " units of a semaphore in shm segment, fd ",
        segment_.fd(), ", which has ", units, " of at most ", max));
  }
  Set(header_->added, added + static_cast<int64_t>(count));
  scope.Wake();
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> SemaphoreCore::Available() const {
  MonitorScope scope(segment_, header_->monitor, Deadline::Infinite(),
                     [this] { Repair(); });
  if (!scope.status().ok()) return scope.status();
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
           internal::LayoutHash("Semaphore", initial));
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
           internal::LayoutHash("BoundedSemaphore", units));
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
