#include "ipc/base/spin_wait.h"

#include <sched.h>
#include <time.h>

#include <algorithm>

#include "ipc/base/current_cpu.h"

namespace ipc {
namespace {

// What waking a thread on another core of a virtual machine takes.
constexpr int32_t kMaxBudgetNs = 40'000;
constexpr int32_t kMinBudgetNs = 1'000;
// Waits in vain before the budget shrinks: one may be an accident.
constexpr uint32_t kPatience = 4;
// Of the waits in vain, each so-manieth has the whole budget.
constexpr uint32_t kProbeEvery = 16;
// The clock is looked at once in so many rounds.
constexpr uint32_t kRoundsPerLook = 16;
// No answer takes less than two cache lines, and a peer that has more to do for
// us can do some of it meanwhile, undisturbed.
constexpr int kFirstPauses = 4;
// After the quick rounds, when one pause more or less makes no difference.
constexpr int kLongPauses = 4;

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

bool MayUseOneCpuOnly() {
  cpu_set_t cpus;
  // Fails on machines of more than 1024 CPUs, which are not of one.
  return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 &&
         CPU_COUNT(&cpus) == 1;
}

}  // namespace

SpinHistory::SpinHistory()
    : one_cpu_(MayUseOneCpuOnly()), budget_ns_(kMaxBudgetNs) {}

SpinWait::SpinWait(SpinHistory* history, int peer_cpu, Expect expect)
    : history_(history),
      enabled_(peer_cpu < 0 ? !history->one_cpu_ : peer_cpu != CurrentCpu()),
      expect_(expect) {}

bool SpinWait::Next() {
  if (!enabled_) return false;
  if (rounds_ % kRoundsPerLook == kRoundsPerLook - 1) {
    const int64_t now = NowNs();
    if (deadline_ns_ == 0) {
      const uint32_t failures =
          history_->failures_.load(std::memory_order_relaxed);
      deadline_ns_ =
          now + (failures % kProbeEvery == kProbeEvery - 1
                     ? kMaxBudgetNs
                     : history_->budget_ns_.load(std::memory_order_relaxed));
    } else if (now >= deadline_ns_) {
      Failed();
      return false;
    }
  }
  if (rounds_ == 0 && expect_ == Expect::kMore) {
    PauseForStream();
  } else {
    Pause(rounds_ == 0 ? kFirstPauses : has_just_begun() ? 1 : kLongPauses);
  }
  ++rounds_;
  return true;
}

void SpinWait::Failed() {
  const uint32_t failures =
      history_->failures_.load(std::memory_order_relaxed) + 1;
  history_->failures_.store(failures, std::memory_order_relaxed);
  if (failures < kPatience) return;
  const int32_t budget = history_->budget_ns_.load(std::memory_order_relaxed);
  history_->budget_ns_.store(std::max(budget / 2, kMinBudgetNs),
                             std::memory_order_relaxed);
}

void SpinWait::Succeeded() {
  if (history_->failures_.load(std::memory_order_relaxed) != 0) {
    history_->failures_.store(0, std::memory_order_relaxed);
  }
  const int32_t budget = history_->budget_ns_.load(std::memory_order_relaxed);
  if (budget == kMaxBudgetNs) return;
  history_->budget_ns_.store(std::min(budget * 2, kMaxBudgetNs),
                             std::memory_order_relaxed);
}

}  // namespace ipc
