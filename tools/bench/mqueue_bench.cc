// How fast a Queue is between processes, beside a bare pipe in the same run.
//
//   bazel run -c opt //tools/bench:mqueue_bench [-- MILLISECONDS]
//
// Each figure is the median of five runs of so many milliseconds (200): msg/s
// with 64 B messages for some producers and consumers, pinned in turn to the
// CPUs there are, and the half of a round trip. Figures of a virtual machine
// vary by 10-30 %; compare within one run only.
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/mqueue/queue.h"

namespace {

using ipc::mqueue::Queue;

constexpr size_t kMessageBytes = 64;
constexpr int kRuns = 5;

struct Shared {
  std::atomic<bool> stop;
  std::atomic<int> ready;
  std::atomic<uint64_t> received;
};

Shared* NewShared() {
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) abort();
  return new (memory) Shared{};
}

void PinTo(int cpu) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(cpu % sysconf(_SC_NPROCESSORS_ONLN), &cpus);
  sched_setaffinity(0, sizeof(cpus), &cpus);
}

pid_t Fork(int cpu, const std::function<void()>& body) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  PinTo(cpu);
  body();
  _exit(0);
}

// Messages per second for the time that `duration` says.
double MeasureQueue(int producers, int consumers, absl::Duration duration) {
  Shared* shared = NewShared();
  Queue queue = *Queue::CreateAnonymous({.slots = 1024, .message_bytes = 64});
  std::vector<pid_t> pids;
  for (int c = 0; c < consumers; ++c) {
    pids.push_back(Fork(producers + c, [&] {
      std::byte buffer[kMessageBytes];
      uint64_t count = 0;
      while (queue.ReceiveInto(absl::MakeSpan(buffer)).ok()) {
        if (++count % 256 == 0) shared->received.fetch_add(256);
      }
    }));
  }
  for (int p = 0; p < producers; ++p) {
    pids.push_back(Fork(p, [&] {
      const std::byte message[kMessageBytes] = {};
      while (queue.Send(absl::MakeSpan(message)).ok()) continue;
    }));
  }
  absl::SleepFor(absl::Milliseconds(20));
  const absl::Time start = absl::Now();
  const uint64_t before = shared->received.load();
  absl::SleepFor(duration);
  const double count = static_cast<double>(shared->received.load() - before);
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  (void)queue.CloseForSend();
  for (const pid_t pid : pids) waitpid(pid, nullptr, 0);
  munmap(shared, sizeof(*shared));
  return count / seconds;
}

double MeasurePipe(int producers, int consumers, absl::Duration duration) {
  Shared* shared = NewShared();
  int fds[2];
  if (pipe(fds) != 0) abort();
  std::vector<pid_t> pids;
  for (int c = 0; c < consumers; ++c) {
    pids.push_back(Fork(producers + c, [&] {
      close(fds[1]);
      char buffer[kMessageBytes];
      uint64_t count = 0;
      while (read(fds[0], buffer, sizeof(buffer)) > 0) {
        if (++count % 256 == 0) shared->received.fetch_add(256);
      }
    }));
  }
  for (int p = 0; p < producers; ++p) {
    pids.push_back(Fork(p, [&] {
      close(fds[0]);
      const char message[kMessageBytes] = {};
      while (!shared->stop.load() &&
             write(fds[1], message, sizeof(message)) > 0) {
      }
    }));
  }
  close(fds[0]);
  close(fds[1]);
  absl::SleepFor(absl::Milliseconds(20));
  const absl::Time start = absl::Now();
  const uint64_t before = shared->received.load();
  absl::SleepFor(duration);
  const double count = static_cast<double>(shared->received.load() - before);
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  shared->stop.store(true);
  for (const pid_t pid : pids) waitpid(pid, nullptr, 0);
  munmap(shared, sizeof(*shared));
  return count / seconds;
}

// Nanoseconds of a round trip between two processes.
double MeasureRoundTrip(absl::Duration duration, int cpus) {
  Queue there = *Queue::CreateAnonymous({.slots = 16, .message_bytes = 64});
  Queue back = *Queue::CreateAnonymous({.slots = 16, .message_bytes = 64});
  const pid_t pid = Fork(cpus - 1, [&] {
    std::byte buffer[kMessageBytes];
    while (there.ReceiveInto(absl::MakeSpan(buffer)).ok()) {
      if (!back.Send(absl::MakeSpan(buffer)).ok()) abort();
    }
  });
  std::byte buffer[kMessageBytes] = {};
  std::vector<double> times;
  const absl::Time end = absl::Now() + duration;
  while (absl::Now() < end) {
    const absl::Time start = absl::Now();
    if (!there.Send(absl::MakeSpan(buffer)).ok() ||
        !back.ReceiveInto(absl::MakeSpan(buffer)).ok()) {
      abort();
    }
    times.push_back(absl::ToDoubleNanoseconds(absl::Now() - start));
  }
  (void)there.CloseForSend();
  waitpid(pid, nullptr, 0);
  std::nth_element(times.begin(), times.begin() + times.size() / 2,
                   times.end());
  return times[times.size() / 2];
}

double Median(const std::function<double()>& measure) {
  std::vector<double> figures(kRuns);
  for (double& figure : figures) figure = measure();
  std::sort(figures.begin(), figures.end());
  return figures[kRuns / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const absl::Duration duration =
      absl::Milliseconds(argc > 1 ? atoi(argv[1]) : 200);
  printf("%10s %14s %14s %8s\n", "senders:", "mqueue msg/s", "pipe msg/s",
         "ratio");
  constexpr int kShapes[][2] = {{1, 1}, {2, 2}, {4, 4}, {4, 1}, {1, 4}};
  for (const auto& [producers, consumers] : kShapes) {
    const double queue = Median([&, p = producers, c = consumers] {
      return MeasureQueue(p, c, duration);
    });
    const double bare = Median([&, p = producers, c = consumers] {
      return MeasurePipe(p, c, duration);
    });
    printf("%6d : %d %14.0f %14.0f %8.1f\n", producers, consumers, queue, bare,
           queue / bare);
  }
  PinTo(0);
  printf("round trip, two CPUs: %8.0f ns\n", MeasureRoundTrip(duration, 2));
  printf("round trip, one CPU:  %8.0f ns\n", MeasureRoundTrip(duration, 1));
}
