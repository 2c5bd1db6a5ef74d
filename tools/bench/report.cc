#include "tools/bench/report.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "tools/bench/cpus.h"

namespace bench {
namespace {

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Figures Medians(const std::vector<Figures>& runs) {
  const auto median = [&](double Figures::*field) {
    std::vector<double> values;
    for (const Figures& run : runs) values.push_back(run.*field);
    return Median(values);
  };
  return {.per_second = median(&Figures::per_second),
          .cpu_ns = median(&Figures::cpu_ns),
          .p50_ns = median(&Figures::p50_ns),
          .p99_ns = median(&Figures::p99_ns),
          .p999_ns = median(&Figures::p999_ns)};
}

// How many times as much the one is as the other, which was measured next to
// it.
double Ratio(const std::vector<Figures>& one, const std::vector<Figures>& other,
             double Figures::*field) {
  std::vector<double> ratios;
  for (size_t run = 0; run < one.size(); ++run) {
    ratios.push_back(one[run].*field / other[run].*field);
  }
  return Median(ratios);
}

// 0 is what was not measured.
std::string Time(double ns) {
  if (ns == 0) return "-";
  if (ns < 10'000) return absl::StrFormat("%.0f ns", ns);
  return absl::StrFormat("%.1f us", ns / 1000);
}

std::string Rate(double per_second) {
  if (per_second >= 1e6) return absl::StrFormat("%.2f M", per_second / 1e6);
  return absl::StrFormat("%.0f k", per_second / 1e3);
}

}  // namespace

bool Report::IsLineNormal(double line_ns) {
  constexpr double kFarOff = 2.5;
  if (best_line_ns_ == 0 || line_ns < best_line_ns_) best_line_ns_ = line_ns;
  return line_ns <= kFarOff * best_line_ns_;
}

Figures Report::Measure(const Row& row, std::vector<double>* lines) {
  constexpr int kPatience = 8;
  for (int i = 0;; ++i) {
    const double before = CacheLineRoundTripNs();
    if (!IsLineNormal(before) && i < kPatience) {
      Sleep(0.3e9);
      continue;
    }
    const Figures figures = row.measure();
    const double after = CacheLineRoundTripNs();
    if (IsLineNormal(std::max(before, after)) || i >= kPatience) {
      lines->push_back(after);
      return figures;
    }
  }
}

void Report::Run(const Table& table) {
  std::vector<std::vector<Figures>> all(table.rows.size());
  std::vector<double> lines;
  for (int run = 0; run < runs_; ++run) {
    for (size_t i = 0; i < table.rows.size(); ++i) {
      all[i].push_back(Measure(table.rows[i], &lines));
    }
  }
  Print(table, all, Median(lines));
}

const char* Report::Judge(bool is_met) {
  missed_ += is_met ? 0 : 1;
  return is_met ? " met" : " MISSED";
}

void Report::Print(const Table& table,
                   const std::vector<std::vector<Figures>>& runs,
                   double line_ns) {
  absl::PrintF("\n%s (a cache line there and back: %.0f ns)\n", table.title,
               line_ns);
  absl::PrintF("  %-32s %9s %8s %9s %9s %9s %9s  %s\n", "", "1/s",
               table.bytes != 0 ? "GB/s" : "", "CPU", "p50", "p99", "p99.9",
               "ours is");
  for (size_t i = 0; i < runs.size(); ++i) {
    const Figures figure = Medians(runs[i]);
    const Target& target = table.rows[i].target;
    absl::PrintF(
        "  %-32s %9s %8s %9s %9s %9s %9s", table.rows[i].name,
        Rate(figure.per_second),
        table.bytes != 0
            ? absl::StrFormat("%.2f", figure.per_second * table.bytes / 1e9)
            : "",
        Time(figure.cpu_ns), Time(figure.p50_ns), Time(figure.p99_ns),
        Time(figure.p999_ns));
    const double rate = Ratio(runs[0], runs[i], &Figures::per_second);
    const double p50 = Ratio(runs[0], runs[i], &Figures::p50_ns);
    if (target.p50_at_most != 0) {
      absl::PrintF("  %.2f of its p50, at most %.2f:%s", p50,
                   target.p50_at_most, Judge(p50 <= target.p50_at_most));
    } else if (i != 0) {
      absl::PrintF("  %.2f x as fast", rate);
    }
    if (target.rate_at_least != 0) {
      absl::PrintF(", at least %.2f:%s", target.rate_at_least,
                   Judge(rate >= target.rate_at_least));
    }
    if (target.rate_at_most != 0) {
      absl::PrintF(", at most %.2f:%s", target.rate_at_most,
                   Judge(rate <= target.rate_at_most));
    }
    if (target.own_rate_at_least != 0) {
      absl::PrintF("  its rate, at least %s:%s", Rate(target.own_rate_at_least),
                   Judge(figure.per_second >= target.own_rate_at_least));
    }
    if (target.own_p50_ns_at_most != 0) {
      absl::PrintF("  its p50, at most %s:%s", Time(target.own_p50_ns_at_most),
                   Judge(figure.p50_ns <= target.own_p50_ns_at_most));
    }
    absl::PrintF("\n");
  }
  fflush(stdout);
}

}  // namespace bench
