// Peers side by side: each is measured once in every round, so that whatever
// the host does to the machine meanwhile is done to all of them, and the median
// of the rounds counts: of a ratio, that of the rounds' ratios. Only ratios
// within one table mean much.
#ifndef TOOLS_BENCH_REPORT_H_
#define TOOLS_BENCH_REPORT_H_

#include <functional>
#include <string>
#include <vector>

#include "tools/bench/measure.h"

namespace bench {

// What the first row has to be in relation to another one, and what a row has
// to be by itself.
struct Target {
  // Of messages (or trips) a second, at least so many times the other's; or of
  // the median time of a round trip, at most. 0: none.
  double rate_at_least = 0;
  double rate_at_most = 0;
  double p50_at_most = 0;
  // Of the row that has this target, whatever the others do. 0: none.
  double own_rate_at_least = 0;
  double own_p50_ns_at_most = 0;
};

struct Row {
  std::string name;
  std::function<Figures()> measure;
  Target target = {};
};

struct Table {
  std::string title;
  // The first one is ours.
  std::vector<Row> rows = {};
  // Bytes of a message: if not 0, GB/s are shown.
  double bytes = 0;
};

class Report {
 public:
  explicit Report(int runs) : runs_(runs) {}

  // Measures and prints.
  void Run(const Table& table);

  int missed() const { return missed_; }

 private:
  // Again, though not for ever, as long as a cache line takes much longer from
  // one CPU to the other than it can, before or after.
  Figures Measure(const Row& row, std::vector<double>* lines);
  bool IsLineNormal(double line_ns);
  // `runs` are the rounds of each row.
  void Print(const Table& table, const std::vector<std::vector<Figures>>& runs,
             double line_ns);
  // " met" or " MISSED", which is counted.
  const char* Judge(bool is_met);

  const int runs_;
  int missed_ = 0;
  double best_line_ns_ = 0;
};

}  // namespace bench

#endif  // TOOLS_BENCH_REPORT_H_
