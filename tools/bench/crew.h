// The processes of one measurement.
//
//   Crew crew;
//   crew.Start(0, [&] { while (true) sender.Send(...); });
//   crew.Start(1, [&] { while (true) receiver.Receive(...); });
//   ...                      // let them work
//   const int64_t cpu_ns = crew.CpuTimeNs();
//   // The destructor kills them.
//
// Processes are killed and never asked to stop: what a peer does at the end
// would only have to be arranged with each of them.
#ifndef TOOLS_BENCH_CREW_H_
#define TOOLS_BENCH_CREW_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace bench {

class Crew {
 public:
  Crew() = default;
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  ~Crew() { End(); }

  // Forks a process pinned to the `cpu`-th CPU (see cpus.h), which runs `body`
  // and exits. It dies with this one. Returns what Join takes.
  size_t Start(int cpu, const std::function<void()>& body);
  // Waits for the end of one process, and ends this one if that has failed.
  void Join(size_t member);

  // CPU time of those who still run, all their threads taken together.
  int64_t CpuTimeNs() const;
  // Ends this process if one of the crew has failed.
  void CheckAlive();
  // Kills who is left, and waits for it.
  void End();

 private:
  std::vector<pid_t> pids_;  // 0 once reaped
};

}  // namespace bench

#endif  // TOOLS_BENCH_CREW_H_
