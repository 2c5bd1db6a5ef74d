#include "ipc/shm/barrier.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/participants.h"
#include "ipc/shm/layout.h"

namespace ipc::shm {
namespace {

using internal::MonitorScope;

constexpr uint64_t Pack(Participant owner) {
  return uint64_t{owner.epoch} << 32 | (uint64_t{owner.index} + 1);
}
constexpr Participant OwnerOf(uint64_t word) {
  return {static_cast<uint32_t>(word) - 1, static_cast<uint32_t>(word >> 32)};
}

// Of the Barrier whose action this thread runs, or null.
thread_local const void* acting_at = nullptr;

class ActionScope {
 public:
  explicit ActionScope(const void* barrier)
      : outer_(std::exchange(acting_at, barrier)) {}
  ActionScope(const ActionScope&) = delete;
  ActionScope& operator=(const ActionScope&) = delete;
  ~ActionScope() { acting_at = outer_; }

 private:
  const void* outer_;
};

}  // namespace

absl::StatusOr<Barrier> Barrier::Attach(Segment segment, size_t offset,
                                        uint32_t parties) {
  if (parties == 0 || parties > kMaxParties) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a Barrier of ", parties, " parties: it takes 1 to ", kMaxParties));
  }
  const absl::StatusOr<std::byte*> object =
      Find(segment, offset, SizeBytes(parties), "Barrier",
           internal::LayoutHash("Barrier/2", parties));
  if (!object.ok()) return object.status();
  return Barrier(std::move(segment), *object, parties);
}

// Relaxed throughout: the monitor's lock orders everything, and who asks
// without it, by IsBroken or ApproximateWaiting, learns nothing else.
Barrier::State Barrier::state() const {
  return static_cast<State>(header()->state.load(std::memory_order_relaxed));
}

void Barrier::SetState(State state) const {
  header()->state.store(state, std::memory_order_relaxed);
}

uint32_t Barrier::Taken() const {
  uint32_t taken = 0;
  for (uint32_t i = 0; i < parties_; ++i) {
    if (place(i).load(std::memory_order_relaxed) != 0) ++taken;
  }
  return taken;
}

void Barrier::ExpelDead() const {
  for (uint32_t i = 0; i < parties_; ++i) {
    const uint64_t word = place(i).load(std::memory_order_relaxed);
    if (word == 0 || !segment().IsDead(OwnerOf(word))) continue;
    // First the state: if we die in between, the next one finds the place.
    if (state() == kFilling) {
      header()->someone_died.store(1, std::memory_order_relaxed);
      SetState(kBroken);
    }
    Leave(i);
  }
}

void Barrier::Leave(uint32_t mine) const {
  place(mine).store(0, std::memory_order_relaxed);
  Settle();
  header()->monitor.Wake();
}

void Barrier::Settle() const {
  const State now = state();
  if (now == kFilling || now == kBroken || Taken() != 0) return;
  SetState(now == kBrokenDraining ? kBroken : kFilling);
}

absl::Status Barrier::Broken() const {
  return absl::AbortedError(absl::StrCat(
      "Barrier of ", parties_, " parties in shm segment, fd ", fd(),
      header()->someone_died.load(std::memory_order_relaxed) != 0
          ? " is broken: a process died waiting at it; Reset it"
          : " is broken, or was reset; Reset makes it as new"));
}

absl::Status Barrier::CheckNotInAction() const {
  if (acting_at != header()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("Barrier in shm segment, fd ", fd(),
                   ": its own action must not use it, for it runs while all "
                   "others are kept out; do that after Wait"));
}

absl::StatusOr<uint32_t> Barrier::Wait(absl::Duration timeout,
                                       const std::function<void()>& action) {
  if (absl::Status status = CheckNotInAction(); !status.ok()) return status;
  const Deadline deadline = Deadline::After(timeout);
  MonitorScope scope(segment(), header()->monitor, deadline);
  const auto sleep = [&](Deadline enter_until) {
    scope.Wait(deadline, enter_until);
    if (scope.status().ok() && scope.IsTimeToProbe()) ExpelDead();
  };

  // The round before may not have come to its end.
  bool has_probed = false;
  while (scope.status().ok()) {
    // Whoever left last may have died before it did this.
    Settle();
    if (state() != kDraining && state() != kResetting) break;
    if (!deadline.HasPassed()) {
      sleep(deadline);
    } else if (!has_probed) {
      ExpelDead();
      has_probed = true;
    } else {
      return absl::DeadlineExceededError(
          absl::StrCat("waiting at a Barrier in shm segment, fd ", fd(),
                       ": those of the round before do not leave"));
    }
  }
  if (!scope.status().ok()) return scope.status();
  if (state() != kFilling) return Broken();

  uint32_t mine = 0;
  while (mine < parties_ && place(mine).load(std::memory_order_relaxed) != 0) {
    ++mine;
  }
  if (mine == parties_) {
    // All were there, and the last one died before it could say so.
    ExpelDead();
    return Broken();
  }
  place(mine).store(Pack(scope.self()), std::memory_order_relaxed);
  if (Taken() == parties_) {
    ExpelDead();
    if (state() == kFilling) {
      if (action != nullptr) Run(action, mine);
      SetState(kDraining);
      header()->monitor.Wake();
    }
  }
  while (state() == kFilling) {
    if (deadline.HasPassed()) {
      SetState(kBroken);
      Leave(mine);
      return absl::DeadlineExceededError(absl::StrCat(
          "waiting at a Barrier in shm segment, fd ", fd(), ": ", Taken() + 1,
          " of ", parties_, " parties came; it is broken now"));
    }
    // Whoever has come has to leave, whatever time it takes to enter.
    sleep(Deadline::Infinite());
    if (!scope.status().ok()) return scope.status();
  }
  const bool passed = state() == kDraining || state() == kBrokenDraining;
  Leave(mine);
  if (!passed) return Broken();
  return mine;
}

void Barrier::Run(const std::function<void()>& action, uint32_t mine) const {
  try {
    const ActionScope scope(header());
    action();
  } catch (...) {
    SetState(kBroken);
    Leave(mine);
    throw;
  }
}

absl::Status Barrier::Abort(absl::Duration timeout) {
  if (absl::Status status = CheckNotInAction(); !status.ok()) return status;
  MonitorScope scope(segment(), header()->monitor, Deadline::After(timeout));
  if (!scope.status().ok()) return scope.status();
  header()->someone_died.store(0, std::memory_order_relaxed);
  // Those who are let through already are.
  SetState(state() == kDraining || state() == kBrokenDraining ? kBrokenDraining
                                                              : kBroken);
  Settle();
  header()->monitor.Wake();
  return absl::OkStatus();
}

absl::Status Barrier::Reset(absl::Duration timeout) {
  if (absl::Status status = CheckNotInAction(); !status.ok()) return status;
  MonitorScope scope(segment(), header()->monitor, Deadline::After(timeout));
  if (!scope.status().ok()) return scope.status();
  ExpelDead();
  header()->someone_died.store(0, std::memory_order_relaxed);
  SetState(state() == kDraining || state() == kBrokenDraining ? kDraining
                                                              : kResetting);
  Settle();
  header()->monitor.Wake();
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> Barrier::ApproximateWaiting() const {
  return state() == kFilling ? Taken() : 0;
}

absl::StatusOr<bool> Barrier::IsBroken() const {
  const State now = state();
  return now == kBroken || now == kBrokenDraining;
}

}  // namespace ipc::shm
