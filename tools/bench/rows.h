// The rows that most benchmarks' tables are made of.
#ifndef TOOLS_BENCH_ROWS_H_
#define TOOLS_BENCH_ROWS_H_

#include <cstddef>
#include <utility>

#include "tools/bench/measure.h"
#include "tools/bench/peers/peer.h"
#include "tools/bench/report.h"

namespace bench {

// How long each row of this program is measured; see BenchMain.
inline Timing timing;

template <typename Peer>
Row OneWay(const Load& load, const Target& target = {}) {
  return {Peer::kName, [load] { return MeasureOneWay<Peer>(load, timing); },
          target};
}

template <typename Peer>
Row Trip(const Load& load, const RoundTrip& how, const Target& target = {}) {
  return {Peer::kName,
          [load, how] { return MeasureRoundTrip<Peer>(load, how, timing); },
          target};
}

// The same with all Buffers at this place of a page.
inline Row Placed(size_t place, Row row) {
  return {row.name,
          [place, measure = std::move(row.measure)] {
            const size_t before = std::exchange(buffer_place, place);
            const Figures figures = measure();
            buffer_place = before;
            return figures;
          },
          row.target};
}

}  // namespace bench

#endif  // TOOLS_BENCH_ROWS_H_
