// How fast ipc/mqueue is, side by side with what else there is.
//
//   bazel run -c opt //tools/bench:mqueue_bench -- [--runs 5] [--ms 200]
//       [--only WORDS] [--check]
//
// Two processes, or as many as it says, pinned in turn to the CPUs; every byte
// of a message is written and read. See report.h for what counts.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/bench/bench_main.h"
#include "tools/bench/measure.h"
#include "tools/bench/peers/boost_peers.h"
#include "tools/bench/peers/iceoryx_peer.h"
#include "tools/bench/peers/ideal_peers.h"
#include "tools/bench/peers/kernel_peers.h"
#include "tools/bench/peers/peer.h"
#include "tools/bench/peers/queue_peer.h"
#include "tools/bench/peers/zeromq_peer.h"
#include "tools/bench/python.h"
#include "tools/bench/report.h"
#include "tools/bench/rows.h"

namespace bench {
namespace {

// Measured by a Python of its own.
Row PythonQueue(const Load& load, const Target& target) {
  return {"Python Queue",
          [load] {
            Figures figures;
            figures.per_second = RunPython(
                "python_queue.py",
                {absl::StrCat(load.senders), absl::StrCat(load.receivers),
                 absl::StrCat(load.bytes), absl::StrCat(timing.run_ns / 1e6)},
                1)[0];
            return figures;
          },
          target};
}

std::vector<Table> OneToOne() {
  const Load load = {};
  return {
      {.title = "64 B one way, 1 sender, 1 receiver",
       .rows = {OneWay<QueuePeer>(load),
                OneWay<BoostMessageQueuePeer>(load, {.rate_at_least = 4}),
                OneWay<PosixMqPeer>(load, {.rate_at_least = 12}),
                PythonQueue(load, {.rate_at_least = 100}),
                OneWay<ZeromqPeer>(load), OneWay<PipePeer>(load),
                OneWay<IceoryxPeer>(load), OneWay<BoostLockfreeQueuePeer>(load),
                OneWay<BoostLockfreeSpscPeer>(load),
                OneWay<IdealHybridPeer>(load),
                OneWay<IdealSpinningPeer>(load)}}};
}

std::vector<Table> ManyToMany() {
  std::vector<Table> tables;
  for (const int n : {2, 4}) {
    const Load load = {.senders = n, .receivers = n};
    const bool two = n == 2;
    tables.push_back(
        {.title =
             absl::StrCat("64 B one way, ", n, " senders, ", n, " receivers"),
         .rows = {OneWay<QueuePeer>(load),
                  OneWay<BoostMessageQueuePeer>(
                      load, {.rate_at_least = two ? 3.0 : 0}),
                  OneWay<BoostLockfreeQueuePeer>(
                      load, {.rate_at_least = two ? 1.0 : 0}),
                  OneWay<ZeromqPeer>(load, {.rate_at_least = two ? 1.0 : 0}),
                  OneWay<PosixMqPeer>(load), OneWay<PipePeer>(load),
                  PythonQueue(load, {})}});
  }
  Row eight = OneWay<QueuePeer>({.senders = 4, .receivers = 4});
  eight.name = "mqueue, 4 + 4";
  Row four =
      OneWay<QueuePeer>({.senders = 2, .receivers = 2}, {.rate_at_least = 0.8});
  four.name = "mqueue, 2 + 2";
  tables.push_back({.title = "64 B one way, more processes than CPUs",
                    .rows = {eight, four}});
  return tables;
}

std::vector<Table> RoundTrips() {
  const Load load = {.depth = 16};
  // Longer than anybody spins.
  const double pause = 60'000;
  return {
      {.title = "64 B round trip, two CPUs, the other side active",
       .rows = {Trip<QueuePeer>(load, {}),
                Trip<IdealHybridPeer>(load, {}, {.p50_at_most = 1.5}),
                Trip<IdealSpinningPeer>(load, {}),
                Trip<BoostMessageQueuePeer>(load, {}),
                Trip<BoostLockfreeSpscPeer>(load, {}),
                Trip<IceoryxPeer>(load, {}), Trip<PosixMqPeer>(load, {}),
                Trip<PipePeer>(load, {}), Trip<ZeromqPeer>(load, {})}},
      {.title = "64 B round trip, two CPUs, the other side asleep",
       .rows = {Trip<QueuePeer>(load, {.pause_ns = pause}),
                Trip<FutexPeer>(load, {.pause_ns = pause},
                                {.p50_at_most = 1.1}),
                Trip<IdealHybridPeer>(load, {.pause_ns = pause}),
                Trip<BoostMessageQueuePeer>(load, {.pause_ns = pause}),
                Trip<PipePeer>(load, {.pause_ns = pause})}},
      {.title = "64 B round trip, one CPU",
       .rows = {Trip<QueuePeer>(load, {.one_cpu = true}),
                Trip<FutexPeer>(load, {.one_cpu = true}, {.p50_at_most = 1.3}),
                Trip<IdealHybridPeer>(load, {.one_cpu = true}),
                Trip<BoostMessageQueuePeer>(load, {.one_cpu = true}),
                Trip<PosixMqPeer>(load, {.one_cpu = true}),
                Trip<PipePeer>(load, {.one_cpu = true}),
                Trip<ZeromqPeer>(load, {.one_cpu = true})}}};
}

std::vector<Table> ByReference() {
  const Load large = {.bytes = 1 << 20, .depth = 16};
  const RoundTrip how = {.touched = 64};
  // The bound of 500 ns is meant where a copied message of 64 B takes 250.
  Row small = Trip<QueuePeer>({.depth = 16}, {}, {.p50_at_most = 2});
  small.name = "mqueue, 64 B by copy";
  return {{.title = "1 MiB handed over by reference, 64 B of it touched, round "
                    "trip",
           .rows = {Trip<QueueLoanPeer>(large, how), small,
                    Trip<IceoryxPeer>(large, how),
                    Trip<IdealSpinningPeer>(large, how)}}};
}

std::vector<Table> Sizes() {
  std::vector<Table> tables;
  for (const size_t bytes :
       {size_t{64}, size_t{1} << 10, size_t{64} << 10, size_t{1} << 20}) {
    // A few MiB at most are under way.
    const size_t depth = bytes >= (64 << 10) ? (4 << 20) / bytes : 1024;
    const Load load = {.bytes = bytes, .depth = depth};
    tables.push_back(
        {.title = absl::StrCat(bytes, " B one way, all bytes touched"),
         .rows = {OneWay<QueueLoanPeer>(load),
                  OneWay<IceoryxPeer>(load, {.rate_at_least = 1}),
                  OneWay<QueuePeer>(load), OneWay<BoostMessageQueuePeer>(load),
                  OneWay<PipePeer>(load), OneWay<ZeromqPeer>(load),
                  OneWay<IdealHybridPeer>(load)},
         .bytes = static_cast<double>(bytes)});
  }
  return tables;
}

Row Varied(const std::string& name, const Load& load, const Target& target) {
  Row row = OneWay<QueuePeer>(load, target);
  row.name = name;
  return row;
}

std::vector<Table> Flatness() {
  Table participants = {.title = "64 B one way, by attached participants",
                        .rows = {}};
  participants.rows.push_back(Varied("64 more", {.bystanders = 64}, {}));
  for (const int n : {0, 2, 6, 14, 30}) {
    participants.rows.push_back(
        Varied(absl::StrCat(n, " more"), {.bystanders = n},
               {.rate_at_least = 0.85, .rate_at_most = 1.15}));
  }
  Table slots = {.title = "64 B one way, by slots", .rows = {}};
  slots.rows.push_back(Varied("65536 slots", {.depth = 65536}, {}));
  for (const size_t depth : {16, 64, 256, 1024, 4096, 16384}) {
    slots.rows.push_back(
        Varied(absl::StrCat(depth, " slots"), {.depth = depth},
               {.rate_at_least = 1 / 1.5, .rate_at_most = 1.5}));
  }
  return {participants, slots};
}

int Main(int argc, char** argv) {
  return BenchMain(
      argc, argv, "How fast ipc/mqueue is, beside its peers.", 200, &timing,
      {OneToOne, ManyToMany, RoundTrips, ByReference, Sizes, Flatness});
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) { return bench::Main(argc, argv); }
