// Time stamps that cost little beside what is measured: a call of clock_gettime
// takes 25 ns, as much as a fifth of a round trip through a cache line.
//
//   const uint64_t start = Ticks();
//   ...
//   const double ns = TicksToNs(Ticks() - start);
//
// x86-64 with a constant time stamp counter, as every processor of the last
// fifteen years has.
#ifndef TOOLS_BENCH_CLOCK_H_
#define TOOLS_BENCH_CLOCK_H_

#include <cstdint>

namespace bench {

inline uint64_t Ticks() { return __builtin_ia32_rdtsc(); }

// By a rate that is measured at the first call (20 ms), so make that one in the
// parent of all processes.
double TicksToNs(uint64_t ticks);
uint64_t NsToTicks(double ns);

// CLOCK_MONOTONIC.
int64_t NowNs();

// Keeps the CPU busy: to wait without giving it up.
void BusyWait(uint64_t ticks);

}  // namespace bench

#endif  // TOOLS_BENCH_CLOCK_H_
