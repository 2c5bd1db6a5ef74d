#include "tools/bench/cpus.h"

#include <sched.h>
#include <sys/utsname.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/bench/clock.h"
#include "tools/bench/crew.h"
#include "tools/bench/die.h"
#include "tools/bench/shared.h"

namespace bench {
namespace {

std::vector<int> AllowedCpus() {
  cpu_set_t set;
  CheckCall(sched_getaffinity(0, sizeof(set), &set) == 0, "sched_getaffinity");
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

const std::vector<int>& Cpus() {
  static const auto* cpus = new std::vector<int>(AllowedCpus());
  return *cpus;
}

std::string ProcessorName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

struct Lines {
  alignas(128) std::atomic<uint32_t> there;
  alignas(128) std::atomic<uint32_t> back;
  alignas(128) std::atomic<uint32_t> done;
  double ns;
};

// Batches, of which the median counts: being preempted spoils a few of them.
constexpr int kBatches = 21;
constexpr uint32_t kBatchSize = 200;

// Acquire and release: nothing but the words themselves is passed on.
void Ping(Lines& lines) {
  std::vector<double> batches;
  uint32_t n = 0;
  // The first one only warms up.
  for (int batch = -1; batch < kBatches; ++batch) {
    const uint64_t start = Ticks();
    for (uint32_t i = 0; i < kBatchSize; ++i) {
      lines.there.store(++n, std::memory_order_release);
      while (lines.back.load(std::memory_order_acquire) != n) continue;
    }
    if (batch >= 0) batches.push_back(TicksToNs(Ticks() - start) / kBatchSize);
  }
  std::sort(batches.begin(), batches.end());
  lines.ns = batches[kBatches / 2];
  lines.done.store(1);
}

[[noreturn]] void Pong(Lines& lines) {
  for (uint32_t n = 1;; ++n) {
    while (lines.there.load(std::memory_order_acquire) != n) continue;
    lines.back.store(n, std::memory_order_release);
  }
}

}  // namespace

int CpuCount() { return static_cast<int>(Cpus().size()); }

int CpuNumber(int i) { return Cpus()[i % Cpus().size()]; }

void PinTo(int i) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(CpuNumber(i), &set);
  CheckCall(sched_setaffinity(0, sizeof(set), &set) == 0, "sched_setaffinity");
}

double CacheLineRoundTripNs() {
  if (CpuCount() < 2) return 0;
  Shared<Lines> lines;
  Crew crew;
  crew.Start(1, [&] { Pong(*lines); });
  crew.Join(crew.Start(0, [&] { Ping(*lines); }));
  return lines->ns;
}

std::string DescribeMachine() {
  utsname name;
  CheckCall(uname(&name) == 0, "uname");
  return absl::StrCat(ProcessorName(), ", ", CpuCount(), " CPUs, ",
                      name.sysname, " ", name.release);
}

}  // namespace bench
