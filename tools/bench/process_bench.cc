// How fast ipc/process starts processes, side by side with what else there is.
//
//   bazel run -c opt //tools/bench:process_bench -- [--runs 5] [--ms 500]
//       [--only WORDS] [--check]
//
// A round is a start, up to the first byte that the child writes into a pipe
// (of which p50 and the like tell), and then its end (which the rate has as
// well). See report.h for what counts.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/fork_server.h"
#include "ipc/process/process.h"
#include "ipc/process/process_pool.h"
#include "ipc/process/spawn.h"
#include "tools/bench/bench_main.h"
#include "tools/bench/clock.h"
#include "tools/bench/die.h"
#include "tools/bench/histogram.h"
#include "tools/bench/measure.h"
#include "tools/bench/process_bench_functions.h"
#include "tools/bench/python.h"
#include "tools/bench/report.h"

namespace bench {
namespace {

using ipc::UniqueFd;
using ipc::process::ForkServer;
using ipc::process::Process;
using ipc::process::ProcessPool;
using ipc::process::SpawnOptions;

Timing timing;

// Writes a byte to its standard output and ends; linked statically.
constexpr char kProgram[] = "tools/bench/process_bench_server";

struct Pipe {
  Pipe() {
    int ends[2];
    CheckCall(pipe2(ends, O_CLOEXEC) == 0, "pipe");
    read_end.Reset(ends[0]);
    write_end.Reset(ends[1]);
  }
  void WaitForByte() const {
    char byte;
    CheckCall(read(read_end.get(), &byte, 1) == 1, "no byte from the child");
  }
  UniqueFd read_end;
  UniqueFd write_end;
};

// `round` is repeated; it returns the ticks of what matters most in it.
template <typename Round>
Figures MeasureRounds(const Round& round) {
  TicksToNs(0);
  const int64_t warm = NowNs() + static_cast<int64_t>(timing.warm_up_ns);
  while (NowNs() < warm) round();
  Histogram ticks;
  const int64_t begin = NowNs();
  uint64_t rounds = 0;
  do {
    ticks.Add(round());
    ++rounds;
  } while (static_cast<double>(NowNs() - begin) < timing.run_ns);
  Figures figures;
  figures.per_second =
      static_cast<double>(rounds) / static_cast<double>(NowNs() - begin) * 1e9;
  SetPercentiles(ticks, &figures);
  return figures;
}

Process Started(absl::StatusOr<Process> process) {
  if (!process.ok()) Die(process.status().ToString().c_str());
  return *std::move(process);
}

Figures MeasureSpawn() {
  SpawnOptions options;
  options.argv = {kProgram, "byte"};
  return MeasureRounds([&] {
    const Pipe pipe;
    options.fds[1] = pipe.write_end.get();
    const uint64_t start = Ticks();
    Process child = Started(ipc::process::Spawn(options));
    pipe.WaitForByte();
    const uint64_t ticks = Ticks() - start;
    if (!child.Join()->success()) Die("a child has failed");
    return ticks;
  });
}

Figures MeasurePosixSpawn() {
  return MeasureRounds([&] {
    const Pipe pipe;
    const uint64_t start = Ticks();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe.write_end.get(), 1);
    char program[sizeof(kProgram)];
    memcpy(program, kProgram, sizeof(kProgram));
    char byte[] = "byte";
    char* argv[] = {program, byte, nullptr};
    char* env[] = {nullptr};
    pid_t pid;
    errno = posix_spawn(&pid, program, &actions, nullptr, argv, env);
    CheckCall(errno == 0, "posix_spawn");
    posix_spawn_file_actions_destroy(&actions);
    pipe.WaitForByte();
    const uint64_t ticks = Ticks() - start;
    int status;
    CheckCall(waitpid(pid, &status, 0) == pid && status == 0, "waitpid");
    return ticks;
  });
}

Figures MeasureStart() {
  return MeasureRounds([&] {
    const Pipe pipe;
    const uint64_t start = Ticks();
    Process child = Started(Process::Start(
        [&] { return write(pipe.write_end.get(), "", 1) == 1 ? 0 : 1; }));
    pipe.WaitForByte();
    const uint64_t ticks = Ticks() - start;
    if (!child.Join()->success()) Die("a child has failed");
    return ticks;
  });
}

ForkServer Server(absl::StatusOr<ForkServer> server) {
  if (!server.ok()) Die(server.status().ToString().c_str());
  return *std::move(server);
}
ForkServer StaticServer() {
  SpawnOptions program;
  program.argv = {kProgram};
  return Server(ForkServer::CreateFromProgram(program));
}
// Made when this process was small.
ForkServer* own_server = nullptr;

// With the same pause before each start.
constexpr double kNowAndThenNs = 5e6;

Figures MeasureForkServer(ForkServer& server, double pause_ns = 0) {
  return MeasureRounds([&] {
    Sleep(pause_ns);
    const Pipe pipe;
    const uint64_t start = Ticks();
    Process child = Started(server.Start("byte", "", {pipe.write_end.get()}));
    pipe.WaitForByte();
    const uint64_t ticks = Ticks() - start;
    if (!child.Join()->success()) Die("a child has failed");
    return ticks;
  });
}

// One start after the other, and nobody waits for their ends but the server.
Figures MeasureStartsOnly(ForkServer& server) {
  return MeasureRounds([&] {
    const uint64_t start = Ticks();
    Started(server.Start("nothing"));
    return Ticks() - start;
  });
}

// What the kernel takes for a fork and the child's first byte, of this process.
Figures MeasureBareFork(double pause_ns = 0) {
  return MeasureRounds([&] {
    Sleep(pause_ns);
    const Pipe pipe;
    const uint64_t start = Ticks();
    const pid_t pid = fork();
    CheckCall(pid >= 0, "fork");
    if (pid == 0) _exit(write(pipe.write_end.get(), "", 1) == 1 ? 0 : 1);
    pipe.WaitForByte();
    const uint64_t ticks = Ticks() - start;
    int status;
    CheckCall(waitpid(pid, &status, 0) == pid && status == 0, "waitpid");
    return ticks;
  });
}

// And of a copy of it that was forked early, and forks for each byte that it is
// sent: the least that a fork server could be.
class BareServer {
 public:
  BareServer() {
    if ((pid_ = fork()) == 0) Serve();
    CheckCall(pid_ > 0, "fork");
  }
  BareServer(const BareServer&) = delete;
  BareServer& operator=(const BareServer&) = delete;
  ~BareServer() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  Figures Measure(double pause_ns = 0) const {
    return MeasureRounds([&] {
      Sleep(pause_ns);
      const uint64_t start = Ticks();
      CheckCall(write(requests_.write_end.get(), "", 1) == 1, "write");
      bytes_.WaitForByte();
      const uint64_t ticks = Ticks() - start;
      ends_.WaitForByte();
      return ticks;
    });
  }

 private:
  [[noreturn]] void Serve() const {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (true) {
      requests_.WaitForByte();
      const pid_t child = fork();
      if (child == 0) _exit(write(bytes_.write_end.get(), "", 1) == 1 ? 0 : 1);
      int status = -1;
      waitpid(child, &status, 0);
      if (status != 0 || write(ends_.write_end.get(), "", 1) != 1) _exit(1);
    }
  }

  Pipe requests_, bytes_, ends_;
  pid_t pid_;
};
BareServer* bare_server = nullptr;

// What tools/bench/python_forkserver.py prints: starts a second, and of the
// first byte the median in nanoseconds.
Figures MeasurePython(absl::string_view method) {
  const std::vector<double> numbers =
      RunPython("python_forkserver.py",
                {std::string(method), absl::StrCat(timing.run_ns / 1e6)}, 2);
  Figures figures;
  figures.per_second = numbers[0];
  figures.p50_ns = numbers[1];
  return figures;
}

// Tasks that do nothing, a window of them at a time.
Figures MeasurePool() {
  absl::StatusOr<ProcessPool> pool = ProcessPool::Create(
      [](absl::string_view input) -> absl::StatusOr<std::string> {
        return std::string(input);
      });
  if (!pool.ok()) Die("no pool");
  const std::vector<std::string> inputs(1000, std::string(64, 'x'));
  Figures figures = MeasureRounds([&] {
    const uint64_t start = Ticks();
    if (!pool->Map(inputs).ok()) Die("Map has failed");
    return (Ticks() - start) / inputs.size();
  });
  figures.per_second *= static_cast<double>(inputs.size());
  if (!pool->Join().ok()) Die("Join has failed");
  return figures;
}

Table Programs() {
  return {"a program, started by a small parent",
          {{"Spawn", MeasureSpawn},
           {"posix_spawn", MeasurePosixSpawn, {.rate_at_least = 0.9}}}};
}

constexpr Target kFirstByte = {.own_p50_ns_at_most = 200'000};

Figures MeasureStaticServer() {
  ForkServer server = StaticServer();
  return MeasureForkServer(server);
}
Figures MeasureOwnServer() { return MeasureForkServer(*own_server); }

Table Functions() {
  return {"a function, started by a small parent",
          {{"ForkServer, static program", MeasureStaticServer, kFirstByte},
           {"ForkServer, forked early", MeasureOwnServer, kFirstByte},
           {"fork, in a process forked early",
            [] { return bare_server->Measure(); }},
           {"Process::Start", MeasureStart},
           {"fork", [] { return MeasureBareFork(); }},
           {"Python's forkserver",
            [] { return MeasurePython("forkserver"); },
            {.rate_at_least = 5}},
           {"Python's fork", [] { return MeasurePython("fork"); }}}};
}

// A start every few milliseconds, for which a spare child is ready.
Table NowAndThen() {
  return {"a function, started every 5 ms by a small parent",
          {{"ForkServer, static program",
            [] {
              ForkServer server = StaticServer();
              return MeasureForkServer(server, kNowAndThenNs);
            },
            kFirstByte},
           {"ForkServer, forked early",
            [] { return MeasureForkServer(*own_server, kNowAndThenNs); },
            kFirstByte},
           {"fork, in a process forked early",
            [] { return bare_server->Measure(kNowAndThenNs); }},
           {"fork", [] { return MeasureBareFork(kNowAndThenNs); }}}};
}

Table Starts() {
  constexpr Target kStarts = {.own_rate_at_least = 5000};
  return {"starts, with nobody waiting for their ends",
          {{"ForkServer, static program",
            [] {
              ForkServer server = StaticServer();
              return MeasureStartsOnly(server);
            },
            kStarts},
           {"ForkServer, forked early",
            [] { return MeasureStartsOnly(*own_server); }, kStarts}}};
}

Table Pools() {
  return {
      "64 B in and out of a pool of 2, each task of 1000",
      {{"ProcessPool", MeasurePool}, {"concurrent.futures, chunksize 1", [] {
                                        return MeasurePython("pool");
                                      }}}};
}

std::vector<Table> OfASmallParent() {
  return {Programs(), Functions(), NowAndThen(), Starts(), Pools()};
}

// Measured while this process has that much memory.
std::function<Figures()> With2GiB(std::function<Figures()> measure) {
  return [measure = std::move(measure)] {
    constexpr size_t kBytes = size_t{2} << 30;
    void* const memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CheckCall(memory != MAP_FAILED, "memory of the large parent");
    // Small pages, as in a heap that has grown bit by bit.
    madvise(memory, kBytes, MADV_NOHUGEPAGE);
    memset(memory, 1, kBytes);
    const Figures figures = measure();
    munmap(memory, kBytes);
    return figures;
  };
}

// That the size of the parent does not matter.
Table Sizes(absl::string_view what, const std::function<Figures()>& measure,
            const Target& large) {
  return {absl::StrCat(what, ", parents of two sizes"),
          {{"parent of 2 GiB", With2GiB(measure), large},
           {"small parent", measure, {.p50_at_most = 1.1}}}};
}

std::vector<Table> OfALargeParent() {
  return {
      {"a program, started by a parent of 2 GiB",
       {{"Spawn", With2GiB(MeasureSpawn)},
        {"posix_spawn", With2GiB(MeasurePosixSpawn), {.rate_at_least = 0.9}}}},
      Sizes("Spawn", MeasureSpawn, {}),
      Sizes("ForkServer, static program", MeasureStaticServer, kFirstByte),
      Sizes("ForkServer, forked early", MeasureOwnServer, kFirstByte),
      {"a function, started by a parent of 2 GiB",
       {{"Process::Start", With2GiB(MeasureStart)},
        {"fork", With2GiB([] { return MeasureBareFork(); })}}}};
}

int Main(int argc, char** argv) {
  ForkServer server = Server(ForkServer::Create(ProcessBenchFunctions()));
  own_server = &server;
  BareServer bare;
  bare_server = &bare;
  return BenchMain(argc, argv,
                   "How fast ipc/process starts processes, beside its peers.",
                   500, &timing, {OfASmallParent, OfALargeParent});
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) { return bench::Main(argc, argv); }
