#include "tools/bench/bench_main.h"

#include <CLI/CLI.hpp>

#include "absl/strings/str_format.h"
#include "tools/bench/clock.h"
#include "tools/bench/cpus.h"

namespace bench {

int BenchMain(int argc, char** argv, const std::string& description, double ms,
              Timing* timing,
              const std::vector<std::function<std::vector<Table>()>>& tables) {
  CLI::App app(description);
  int runs = 5;
  std::string only;
  bool check = false;
  app.add_option("--runs", runs, "rounds, of which the median counts")
      ->check(CLI::Range(1, 1000));
  app.add_option("--ms", ms, "milliseconds of each measurement")
      ->check(CLI::Range(1.0, 1e6));
  app.add_option("--only", only, "only tables with these words in the title");
  app.add_flag("--check", check, "exit with 1 if a target is missed");
  CLI11_PARSE(app, argc, argv);
  timing->run_ns = ms * 1e6;

  TicksToNs(0);
  absl::PrintF("%s; median of %d runs of %g ms\n", DescribeMachine(), runs, ms);
  Report report(runs);
  for (const auto& make : tables) {
    for (const Table& table : make()) {
      if (table.title.find(only) != std::string::npos) report.Run(table);
    }
  }
  absl::PrintF("\n%d targets missed\n", report.missed());
  return check && report.missed() > 0 ? 1 : 0;
}

}  // namespace bench
