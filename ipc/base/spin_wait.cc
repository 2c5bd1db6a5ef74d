#include "ipc/base/spin_wait.h"

#include <sched.h>
#include <time.h>

#include <algorithm>

#include "ipc/base/current_cpu.h"

namespace ipc {
namespace {

constexpr int32_t kMaxBudgetNs = 20'000;
constexpr int32_t kMinBudgetNs = 1'000;
constexpr int kMaxPauses = 16;

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
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

SpinWait::SpinWait(SpinHistory* history, int peer_cpu)
    : history_(history),
      enabled_(peer_cpu < 0 ? !history->one_cpu_ : peer_cpu != CurrentCpu()) {}

bool SpinWait::Next() {
  if (!enabled_) return false;
  const int32_t budget = history_->budget_ns_.load(std::memory_order_relaxed);
  const int64_t now = NowNs();
  if (deadline_ns_ == 0) {
    deadline_ns_ = now + budget;
  } else if (now >= deadline_ns_) {
    history_->budget_ns_.store(std::max(budget / 2, kMinBudgetNs),
                               std::memory_order_relaxed);
    return false;
  }
  for (int i = 0; i < pauses_; ++i) Pause();
  pauses_ = std::min(pauses_ * 2, kMaxPauses);
  return true;
}

void SpinWait::Succeeded() {
  if (deadline_ns_ == 0) return;
  const int32_t budget = history_->budget_ns_.load(std::memory_order_relaxed);
  if (budget == kMaxBudgetNs) return;
  history_->budget_ns_.store(std::min(budget * 2, kMaxBudgetNs),
                             std::memory_order_relaxed);
}

}  // namespace ipc
