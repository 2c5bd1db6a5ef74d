// How often an operation can be done, by one process or by several at a time:
//
//   Figures figures = MeasureLoops(timing, [&] { value.Load(); });
//   Figures figures = MeasureLoops(timing, [&] { ... }, [&] { ... });
//
// Each operation is repeated by a process of its own, pinned to the next CPU.
#ifndef TOOLS_BENCH_LOOPS_H_
#define TOOLS_BENCH_LOOPS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "tools/bench/clock.h"
#include "tools/bench/crew.h"
#include "tools/bench/die.h"
#include "tools/bench/measure.h"
#include "tools/bench/shared.h"

namespace bench {

// What the compiler must not know that nobody needs.
template <typename T>
void Use(const T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}
inline void Use(int64_t value) { asm volatile("" : : "r"(value)); }

enum class Counted { kAll, kFirst };

// The rate is that of the first operation, or of all of them taken together;
// the CPU time is that of all processes.
template <Counted kCounted = Counted::kAll, typename... Operations>
Figures MeasureLoops(const Timing& timing, const Operations&... operations) {
  // So that counting costs nothing beside an operation of a nanosecond.
  constexpr int kBatch = 64;
  struct alignas(128) Count {
    std::atomic<uint64_t> done;
  };
  using Counts = std::array<Count, sizeof...(Operations)>;
  Shared<Counts> counts;
  Crew crew;
  int cpu = 0;
  const auto start = [&](const auto& operation) {
    // Relaxed: it passes on nothing else.
    std::atomic<uint64_t>& done = (*counts)[static_cast<size_t>(cpu)].done;
    crew.Start(cpu++, [&] {
      for (uint64_t n = kBatch;; n += kBatch) {
        for (int i = 0; i < kBatch; ++i) operation();
        done.store(n, std::memory_order_relaxed);
      }
    });
  };
  (start(operations), ...);
  const auto sum = [&] {
    if (kCounted == Counted::kFirst) return (*counts)[0].done.load();
    uint64_t all = 0;
    for (const Count& count : *counts) all += count.done.load();
    return all;
  };
  const int64_t begin = NowNs();
  while (sum() == 0) {
    crew.CheckAlive();
    if (NowNs() - begin > 20'000'000'000) Die("nothing is done");
    Sleep(1e6);
  }
  Sleep(timing.warm_up_ns);
  const int64_t from = NowNs();
  const uint64_t before = sum();
  const int64_t cpu_before = crew.CpuTimeNs();
  Sleep(timing.run_ns);
  const double done = static_cast<double>(sum() - before);
  const double ns = static_cast<double>(NowNs() - from);
  const double cpu_ns = static_cast<double>(crew.CpuTimeNs() - cpu_before);
  crew.CheckAlive();
  crew.End();
  Figures figures;
  figures.per_second = done / ns * 1e9;
  figures.cpu_ns = cpu_ns / done;
  return figures;
}

}  // namespace bench

#endif  // TOOLS_BENCH_LOOPS_H_
