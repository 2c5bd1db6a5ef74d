// How fast a Connection is, side by side with read and write by hand and with
// what else carries messages between two processes.
//
//   bazel run -c opt //tools/bench:pipe_bench -- [--runs 5] [--ms 200]
//       [--only WORDS] [--check]
//
// See report.h for what counts.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/bench/bench_main.h"
#include "tools/bench/measure.h"
#include "tools/bench/peers/connection_peer.h"
#include "tools/bench/peers/kernel_peers.h"
#include "tools/bench/peers/nng_peer.h"
#include "tools/bench/peers/peer.h"
#include "tools/bench/peers/zeromq_peer.h"
#include "tools/bench/python.h"
#include "tools/bench/report.h"
#include "tools/bench/rows.h"

namespace bench {
namespace {

// Measured by two Pythons of their own.
Row PythonTrip(const Load& load, bool sockets, bool one_cpu,
               const Target& target) {
  return {"Python Connection",
          [load, sockets, one_cpu] {
            Figures figures;
            figures.p50_ns = RunPython(
                "python_connection.py",
                {absl::StrCat(load.bytes), sockets ? "1" : "0",
                 one_cpu ? "1" : "0", absl::StrCat(timing.run_ns / 1e6)},
                1)[0];
            figures.per_second = 1e9 / figures.p50_ns;
            return figures;
          },
          target};
}

// Beside read and write by hand, of messages whose size both sides know.
template <bool kSockets>
std::vector<Table> RoundTripTables(size_t bytes, bool one_cpu) {
  const Load load = {.bytes = bytes, .depth = 16};
  const RoundTrip how = {.one_cpu = one_cpu};
  const Target ahead = {.p50_at_most = 1};
  const Target near = {.p50_at_most = 1.1};
  const std::string title =
      absl::StrCat(bytes, " B round trip, ", kSockets ? "sockets" : "pipes",
                   ", ", one_cpu ? "one CPU" : "two CPUs");
  return {
      {.title = title,
       .rows = {Trip<ConnectionPeer<kSockets, /*kReadAhead=*/true>>(load, how),
                Trip<SameFdsPeer<kSockets>>(load, how, near),
                Trip<FramesByHandPeer<kSockets, false>>(load, how, near),
                Trip<NngPeer>(load, how, ahead),
                Trip<ZeromqPeer>(load, how, ahead),
                PythonTrip(load, kSockets, one_cpu, ahead)}},
      {.title = absl::StrCat(title, ", without reading ahead"),
       .rows = {Trip<ConnectionPeer<kSockets>>(load, how),
                Trip<SameFdsPeer<kSockets>>(load, how, near),
                Trip<FramesByHandPeer<kSockets, true>>(load, how, near)}}};
}

// The same where memory lies that nobody has placed.
template <bool kSockets>
Table PlacedTable(size_t bytes, bool one_cpu, size_t place,
                  const std::string& what) {
  const Load load = {.bytes = bytes, .depth = 16};
  const RoundTrip how = {.one_cpu = one_cpu};
  return {.title = absl::StrCat(bytes, " B round trip, ",
                                kSockets ? "sockets" : "pipes", ", ",
                                one_cpu ? "one CPU" : "two CPUs", ", ", what),
          .rows = {Placed(place, Trip<ConnectionPeer<kSockets>>(load, how)),
                   Placed(place, Trip<SameFdsPeer<kSockets>>(
                                     load, how, {.p50_at_most = 1.1}))}};
}

std::vector<Table> Places() {
  std::vector<Table> tables;
  for (const bool one_cpu : {true, false}) {
    for (const size_t bytes : {size_t{4} << 10, size_t{64} << 10}) {
      for (const auto& [place, what] :
           {std::pair<size_t, std::string>{0, "from the beginning of a page"},
            {16, "from 16 B behind it"}}) {
        tables.push_back(PlacedTable<false>(bytes, one_cpu, place, what));
        tables.push_back(PlacedTable<true>(bytes, one_cpu, place, what));
      }
    }
  }
  return tables;
}

std::vector<Table> RoundTrips() {
  std::vector<Table> tables;
  for (const bool one_cpu : {true, false}) {
    // With its header a message of a page's size takes two pages of a pipe, and
    // one of four bytes less a single one.
    for (const size_t bytes :
         {size_t{64}, size_t{1} << 10, (size_t{4} << 10) - 4, size_t{4} << 10,
          size_t{64} << 10, size_t{1} << 20}) {
      for (const auto& some : {RoundTripTables<false>(bytes, one_cpu),
                               RoundTripTables<true>(bytes, one_cpu)}) {
        tables.insert(tables.end(), some.begin(), some.end());
      }
    }
  }
  return tables;
}

std::vector<Table> Streams() {
  constexpr size_t kLarge = size_t{1} << 20;
  const Load small = {};
  const Load large = {.bytes = kLarge};
  const Target three_times = {.rate_at_least = 3};
  return {
      {.title = "64 B one way, a batch in a system call, pipe",
       .rows = {OneWay<BatchPeer<false>>(small),
                OneWay<ConnectionPeer<false>>(small, three_times),
                OneWay<PipePeer>(small, three_times)}},
      {.title = "64 B one way, a batch in a system call, sockets",
       .rows = {OneWay<BatchPeer<true>>(small),
                OneWay<ConnectionPeer<true>>(small, three_times),
                OneWay<SocketPeer>(small, three_times)}},
      {.title = "1 MiB one way, sockets",
       .rows = {OneWay<ConnectionPeer<true>>(large),
                OneWay<SocketPeer>(large, {.rate_at_least = 2}),
                OneWay<NngPeer>(large), OneWay<ZeromqPeer>(large)},
       .bytes = static_cast<double>(kLarge)},
      {.title = "1 MiB one way, pipe",
       .rows = {OneWay<ConnectionPeer<false>>(large), OneWay<PipePeer>(large)},
       .bytes = static_cast<double>(kLarge)},
  };
}

int Main(int argc, char** argv) {
  return BenchMain(argc, argv, "How fast a Connection is, beside its peers.",
                   200, &timing, {RoundTrips, Places, Streams});
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) { return bench::Main(argc, argv); }
