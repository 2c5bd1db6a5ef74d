#include "tools/bench/clock.h"

#include <time.h>

namespace bench {
namespace {

double MeasureTicksPerNs() {
  constexpr int64_t kNs = 20'000'000;
  const int64_t start_ns = NowNs();
  const uint64_t start = Ticks();
  int64_t now_ns;
  do {
    now_ns = NowNs();
  } while (now_ns - start_ns < kNs);
  return static_cast<double>(Ticks() - start) /
         static_cast<double>(now_ns - start_ns);
}

double TicksPerNs() {
  static const double rate = MeasureTicksPerNs();
  return rate;
}

}  // namespace

double TicksToNs(uint64_t ticks) {
  return static_cast<double>(ticks) / TicksPerNs();
}

uint64_t NsToTicks(double ns) {
  return static_cast<uint64_t>(ns * TicksPerNs());
}

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void BusyWait(uint64_t ticks) {
  const uint64_t start = Ticks();
  while (Ticks() - start < ticks) __builtin_ia32_pause();
}

}  // namespace bench
