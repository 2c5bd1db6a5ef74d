// How fast a Connection is, side by side with read and write by hand and with
// what else carries messages between two processes.
//
//   bazel run -c opt //tools/bench:pipe_bench -- [--runs 5] [--ms 200]
//       [--only WORDS] [--check]
//
// See report.h for what counts.
#include <stdio.h>

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/bench/bench_main.h"
#include "tools/bench/die.h"
#include "tools/bench/measure.h"
#include "tools/bench/peers/connection_peer.h"
#include "tools/bench/peers/kernel_peers.h"
#include "tools/bench/peers/peer.h"
#include "tools/bench/peers/zeromq_peer.h"
#include "tools/bench/report.h"

namespace bench {
namespace {

Timing timing;

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

// Measured by two Pythons of their own.
Row PythonTrip(const Load& load, bool one_cpu, const Target& target) {
  return {"Python Connection",
          [load, one_cpu] {
            const std::string command = absl::StrCat(
                "python3 tools/bench/python_connection.py ", load.bytes, " ",
                one_cpu ? 1 : 0, " ", timing.run_ns / 1e6);
            FILE* const output = popen(command.c_str(), "r");
            CheckCall(output != nullptr, "popen");
            char line[64] = {};
            const bool has_line = fgets(line, sizeof(line), output) != nullptr;
            Figures figures;
            if (pclose(output) != 0 || !has_line ||
                !absl::SimpleAtod(line, &figures.p50_ns)) {
              Die("python_connection.py has failed");
            }
            figures.per_second = 1e9 / figures.p50_ns;
            return figures;
          },
          target};
}

std::vector<Table> RoundTrips() {
  std::vector<Table> tables;
  for (const bool one_cpu : {true, false}) {
    for (const size_t bytes : {size_t{64}, size_t{4096}, size_t{65536}}) {
      const Load load = {.bytes = bytes, .depth = 16};
      const RoundTrip how = {.one_cpu = one_cpu};
      const Target ahead = {.p50_at_most = 1};
      const std::string where = one_cpu ? "one CPU" : "two CPUs";
      tables.push_back(
          {.title = absl::StrCat(bytes, " B round trip, pipes, ", where),
           .rows = {Trip<PipeConnectionPeer>(load, how),
                    Trip<PipePeer>(load, how, {.p50_at_most = 1.1}),
                    Trip<ZeromqPeer>(load, how, ahead),
                    PythonTrip(load, one_cpu, ahead)}});
      tables.push_back(
          {.title = absl::StrCat(bytes, " B round trip, sockets, ", where),
           .rows = {Trip<SocketConnectionPeer>(load, how),
                    Trip<SocketPeer>(load, how, {.p50_at_most = 1.1}),
                    Trip<ZeromqPeer>(load, how, ahead),
                    PythonTrip(load, one_cpu, ahead)}});
    }
  }
  return tables;
}

std::vector<Table> Streams() {
  const Load small = {};
  const Load large = {.bytes = 1 << 20};
  return {
      {.title = "64 B one way, a batch in a system call, pipe",
       .rows = {OneWay<BatchPeer<false>>(small),
                OneWay<PipeConnectionPeer>(small, {.rate_at_least = 3}),
                OneWay<PipePeer>(small, {.rate_at_least = 3})}},
      {.title = "64 B one way, a batch in a system call, sockets",
       .rows = {OneWay<BatchPeer<true>>(small),
                OneWay<SocketConnectionPeer>(small, {.rate_at_least = 3}),
                OneWay<SocketPeer>(small, {.rate_at_least = 3})}},
      {.title = "1 MiB one way",
       .rows = {OneWay<SocketConnectionPeer>(large),
                OneWay<SocketPeer>(large, {.rate_at_least = 2}),
                OneWay<PipeConnectionPeer>(large), OneWay<PipePeer>(large),
                OneWay<ZeromqPeer>(large)},
       .bytes = static_cast<double>(large.bytes)},
  };
}

int Main(int argc, char** argv) {
  return BenchMain(argc, argv, "How fast a Connection is, beside its peers.",
                   200, &timing, {RoundTrips, Streams});
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) { return bench::Main(argc, argv); }
