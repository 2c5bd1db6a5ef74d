// What the benchmarks' mains have in common: their options, and a report of the
// tables.
#ifndef TOOLS_BENCH_BENCH_MAIN_H_
#define TOOLS_BENCH_BENCH_MAIN_H_

#include <functional>
#include <string>
#include <vector>

#include "tools/bench/measure.h"
#include "tools/bench/report.h"

namespace bench {

// Parses --runs, --ms, --only, --check; sets how long `timing` says to measure,
// which was `ms` unless told; and reports the tables that are asked for.
// Returns the exit code.
int BenchMain(int argc, char** argv, const std::string& description, double ms,
              Timing* timing,
              const std::vector<std::function<std::vector<Table>()>>& tables);

}  // namespace bench

#endif  // TOOLS_BENCH_BENCH_MAIN_H_
