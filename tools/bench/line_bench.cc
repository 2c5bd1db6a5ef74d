// What it takes to use a cache line, by what the process on the other CPU has
// done to it before. The queue and the ring are built on the answers: see
// "Whose line it is" in README.md.
//
// Two processes take turns with the same lines, in order. Ours is measured.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ipc/base/spin_wait.h"
#include "tools/bench/bench_main.h"
#include "tools/bench/clock.h"
#include "tools/bench/crew.h"
#include "tools/bench/measure.h"
#include "tools/bench/report.h"
#include "tools/bench/rows.h"
#include "tools/bench/shared.h"

// ThreadSanitizer does not model a fence, GCC warns. Nobody measures under it.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

namespace bench {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kLines = 512;
// How far ahead of its use a line is fetched.
constexpr size_t kAhead = 12;

enum class Operation { kLoad, kStore, kLocked, kPrefetchedLocked };

const char* NameOf(Operation operation) {
  switch (operation) {
    case Operation::kLoad:
      return "load";
    case Operation::kStore:
      return "store";
    case Operation::kLocked:
      return "locked operation";
    case Operation::kPrefetchedLocked:
      return "locked operation, prefetched";
  }
  return "";
}

// Once on each line. What is stored has reached the cache at the end.
void DoAll(Operation operation, std::byte* lines) {
  const auto word = [lines](size_t i) -> std::atomic<uint64_t>& {
    return *reinterpret_cast<std::atomic<uint64_t>*>(lines +
                                                     i % kLines * kLine);
  };
  // Relaxed throughout: the lines carry nothing.
  for (size_t i = 0; i < kLines; ++i) {
    switch (operation) {
      case Operation::kLoad:
        (void)word(i).load(std::memory_order_relaxed);
        break;
      case Operation::kStore:
        word(i).store(i, std::memory_order_relaxed);
        break;
      case Operation::kPrefetchedLocked:
        __builtin_prefetch(&word(i + kAhead), 1);
        [[fallthrough]];
      case Operation::kLocked:
        word(i).fetch_add(1, std::memory_order_relaxed);
        break;
    }
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

// The rate is that of lines, the CPU time what one of them takes.
Figures Measure(Operation ours, Operation before) {
  struct alignas(128) Turn {
    std::atomic<uint64_t> passes;  // even: ours is next
  };
  struct State {
    Turn turn;
    std::atomic<uint64_t> ticks;
  };
  const SharedBytes lines(kLines * kLine);
  const Shared<State> state;
  // The lines' operations come before the turn is passed on.
  const auto await = [&](uint64_t parity) {
    while (state->turn.passes.load(std::memory_order_acquire) % 2 != parity) {
      ipc::Pause();
    }
  };
  TicksToNs(0);
  Crew crew;
  crew.Start(1, [&] {
    while (true) {
      await(1);
      DoAll(before, lines.data());
      state->turn.passes.fetch_add(1);
    }
  });
  crew.Start(0, [&] {
    while (true) {
      await(0);
      const uint64_t start = Ticks();
      DoAll(ours, lines.data());
      // Relaxed: a figure.
      state->ticks.fetch_add(Ticks() - start, std::memory_order_relaxed);
      state->turn.passes.fetch_add(1);
    }
  });
  Sleep(timing.warm_up_ns);
  const uint64_t ticks_before = state->ticks.load();
  const uint64_t passes_before = state->turn.passes.load();
  Sleep(timing.run_ns);
  const uint64_t ticks = state->ticks.load() - ticks_before;
  const uint64_t passes = (state->turn.passes.load() - passes_before) / 2;
  crew.CheckAlive();
  crew.End();
  const double ns = TicksToNs(ticks) /
                    static_cast<double>(std::max<uint64_t>(passes, 1) * kLines);
  Figures figures;
  figures.per_second = 1e9 / ns;
  figures.cpu_ns = ns;
  return figures;
}

std::vector<Table> Lines() {
  const auto row = [](Operation ours, Operation before) {
    return Row{absl::StrCat(NameOf(ours), "; before: ", NameOf(before)),
               [=] { return Measure(ours, before); }};
  };
  using enum Operation;
  return {
      {.title = "a line, by what the other side has done to it before",
       .rows = {row(kStore, kStore), row(kStore, kLoad), row(kLocked, kStore),
                row(kLocked, kLoad), row(kPrefetchedLocked, kLoad),
                row(kLocked, kLocked), row(kLoad, kStore)}}};
}

int Main(int argc, char** argv) {
  return BenchMain(argc, argv,
                   "What a cache line takes, by whose it was before.", 100,
                   &timing, {Lines});
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) { return bench::Main(argc, argv); }
