// How fast the ring of ipc/pipe is, side by side with what the machine can do.
//
//   bazel run -c opt //tools/bench:ring_bench -- [--runs 5] [--ms 200]
//       [--only WORDS] [--check]
//
// Two processes, pinned; every byte of a message is written and read, unless a
// title says otherwise. See report.h for what counts.
#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/bench/bench_main.h"
#include "tools/bench/measure.h"
#include "tools/bench/peers/boost_peers.h"
#include "tools/bench/peers/ideal_peers.h"
#include "tools/bench/peers/kernel_peers.h"
#include "tools/bench/peers/peer.h"
#include "tools/bench/peers/queue_peer.h"
#include "tools/bench/peers/ring_peer.h"
#include "tools/bench/report.h"
#include "tools/bench/rows.h"

namespace bench {
namespace {

std::vector<Table> OneWays() {
  const Load small = {};
  std::vector<Table> tables = {
      {.title = "64 B one way",
       .rows = {OneWay<RingPeer>(small),
                OneWay<IdealHybridPeer>(small, {.rate_at_least = 0.7}),
                OneWay<BoostLockfreeSpscPeer>(small, {.rate_at_least = 2}),
                OneWay<RingBatchPeer>(small), OneWay<QueuePeer>(small),
                OneWay<PipePeer>(small), OneWay<IdealSpinningPeer>(small)}}};
  for (const size_t bytes :
       {size_t{1} << 10, size_t{4} << 10, size_t{64} << 10, size_t{1} << 20}) {
    // A few MiB at most are under way.
    const bool large = bytes >= (64 << 10);
    const Load load = {.bytes = bytes,
                       .depth = large ? (4 << 20) / bytes : 1024};
    tables.push_back(
        {.title = absl::StrCat(bytes, " B one way"),
         .rows = {OneWay<RingPeer>(load),
                  OneWay<IdealHybridPeer>(load,
                                          {.rate_at_least = large ? 0.85 : 0}),
                  OneWay<QueueLoanPeer>(load), OneWay<PipePeer>(load)},
         .bytes = static_cast<double>(bytes)});
  }
  return tables;
}

std::vector<Table> RoundTrips() {
  const Load load = {.depth = 64};
  // Longer than anybody spins.
  const double pause = 60'000;
  const Load large = {.bytes = 1 << 20, .depth = 16};
  const RoundTrip by_reference = {.touched = 64};
  Row small = Trip<RingPeer>(load, {});
  small.name = "ring, 64 B";
  return {
      {.title = "64 B round trip, two CPUs, the other side active",
       .rows = {Trip<RingPeer>(load, {}),
                Trip<IdealHybridPeer>(load, {}, {.p50_at_most = 1.3}),
                Trip<IdealSpinningPeer>(load, {}), Trip<QueuePeer>(load, {}),
                Trip<BoostLockfreeSpscPeer>(load, {}),
                Trip<PipePeer>(load, {})}},
      {.title = "64 B round trip, two CPUs, the other side asleep",
       .rows = {Trip<RingPeer>(load, {.pause_ns = pause}),
                Trip<FutexPeer>(load, {.pause_ns = pause}),
                Trip<IdealHybridPeer>(load, {.pause_ns = pause}),
                Trip<QueuePeer>(load, {.pause_ns = pause}),
                Trip<PipePeer>(load, {.pause_ns = pause})}},
      {.title = "64 B round trip, one CPU",
       .rows = {Trip<RingPeer>(load, {.one_cpu = true}),
                Trip<PipePeer>(load, {.one_cpu = true}, {.p50_at_most = 1.15}),
                Trip<FutexPeer>(load, {.one_cpu = true}),
                Trip<IdealHybridPeer>(load, {.one_cpu = true}),
                Trip<QueuePeer>(load, {.one_cpu = true})}},
      {.title = "1 MiB by reference, 64 B of it touched, round trip",
       .rows = {
           Trip<RingPeer>(large, by_reference, {.own_p50_ns_at_most = 250}),
           small, Trip<IdealHybridPeer>(large, by_reference),
           Trip<QueueLoanPeer>(large, by_reference)}}};
}

int Main(int argc, char** argv) {
  return BenchMain(argc, argv,
                   "How fast the ring of ipc/pipe is, beside its peers.", 200,
                   &timing, {OneWays, RoundTrips});
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) { return bench::Main(argc, argv); }
