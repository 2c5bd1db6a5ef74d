#include "tools/bench/crew.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench/cpus.h"
#include "tools/bench/die.h"

namespace bench {

void Crew::End() {
  for (const pid_t pid : pids_) {
    if (pid != 0) kill(pid, SIGKILL);
  }
  for (const pid_t pid : pids_) {
    if (pid != 0) waitpid(pid, nullptr, 0);
  }
  pids_.clear();
}

size_t Crew::Start(int cpu, const std::function<void()>& body) {
  // Else a child that exits would print again what is buffered here.
  fflush(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  CheckCall(pid >= 0, "fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    PinTo(cpu);
    body();
    _exit(0);
  }
  pids_.push_back(pid);
  return pids_.size() - 1;
}

void Crew::Join(size_t member) {
  int status = 0;
  CheckCall(waitpid(pids_[member], &status, 0) == pids_[member], "waitpid");
  pids_[member] = 0;
  if (status != 0) Die("a process of the measurement has failed");
}

int64_t Crew::CpuTimeNs() const {
  int64_t sum = 0;
  for (const pid_t pid : pids_) {
    clockid_t clock;
    timespec time;
    if (pid == 0 || clock_getcpuclockid(pid, &clock) != 0 ||
        clock_gettime(clock, &time) != 0) {
      continue;
    }
    sum += int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  }
  return sum;
}

void Crew::CheckAlive() {
  for (pid_t& pid : pids_) {
    int status;
    if (pid == 0 || waitpid(pid, &status, WNOHANG) != pid) continue;
    pid = 0;
    if (status != 0) Die("a process of the measurement has failed");
  }
}

}  // namespace bench
