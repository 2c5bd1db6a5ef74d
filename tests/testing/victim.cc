#include "tests/testing/victim.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/testing/process_state.h"
#include "tests/testing/repeatable_heap.h"

namespace ipc::testing {
namespace {

// Marks the begin and the end of the operation: stops the victim at exactly the
// next instruction.
inline void Breakpoint() { asm volatile("int3" ::: "memory"); }

void Die(const char* what) {
  fprintf(stderr, "victim: %s: %s\n", what, strerror(errno));
  abort();
}

void Reap(pid_t id) {
  int status;
  // Tells of a stop first, if it was at one.
  while (waitpid(id, &status, __WALL) == id && WIFSTOPPED(status)) {
  }
}

void SetDebugRegister(pid_t id, size_t number, uint64_t value) {
  const size_t offset =
      offsetof(struct user, u_debugreg) + number * sizeof(value);
  if (ptrace(PTRACE_POKEUSER, id, offset, value) != 0) {
    Die("setting a breakpoint");
  }
}

}  // namespace

Victim::Victim(absl::FunctionRef<void()> prepare,
               absl::FunctionRef<void()> operate)
    : pid_(fork()), current_(pid_) {
  if (pid_ < 0) Die("fork");
  if (pid_ == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) Die("TRACEME");
    UseRepeatableHeap();
    prepare();
    Breakpoint();
    operate();
    Breakpoint();
    _exit(0);
  }
  // Up to the first breakpoint; signals of `prepare` are delivered.
  int status = Await();
  while (WSTOPSIG(status) != SIGTRAP) {
    Continue(PTRACE_CONT, WSTOPSIG(status));
    status = Await();
  }
  if (ptrace(PTRACE_SETOPTIONS, pid_, nullptr,
             PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL) != 0) {
    Die("SETOPTIONS");
  }
}

Victim::~Victim() {
  kill(pid_, SIGKILL);
  // The process is not reaped before its threads, which may be more than one
  // if it has woken by itself.
  for (const pid_t thread : OtherThreads()) Reap(thread);
  Reap(pid_);
}

uint64_t Victim::address() const {
  errno = 0;
  const long address = ptrace(PTRACE_PEEKUSER, current_,
                              offsetof(user_regs_struct, rip), nullptr);
  if (errno != 0) Die("PEEKUSER");
  return static_cast<uint64_t>(address);
}

Victim::State Victim::Step() {
  // The child's code is where ours is.
  const auto* code = reinterpret_cast<const unsigned char*>(address());
  const bool may_sleep = code[0] == 0x0f && code[1] == 0x05;  // syscall
  return Resume(PTRACE_SINGLESTEP, may_sleep);
}

Victim::State Victim::StepOut() {
  errno = 0;
  const long stack = ptrace(PTRACE_PEEKUSER, current_,
                            offsetof(user_regs_struct, rsp), nullptr);
  const long back = ptrace(PTRACE_PEEKDATA, current_, stack, nullptr);
  if (errno != 0) Die("reading the victim's stack");
  SetBreakpoint(static_cast<uint64_t>(back));
  const State state = Go();
  SetBreakpoint(0);
  return state;
}

int64_t Victim::Sleeps() const { return VoluntarySwitches(current_); }

Victim::State Victim::AwaitWaking(int64_t sleeps_before) {
  // A step ends with the system call that has slept.
  const bool may_sleep = last_request_ != PTRACE_SINGLESTEP;
  return AwaitStop(last_request_, may_sleep, sleeps_before);
}

void Victim::SetBreakpoint(uint64_t address) {
  breakpoint_ = address;
  SetBreakpointOf(current_);
  // If it was started and has not begun.
  if (thread_ != 0 && current_ == pid_) SetBreakpointOf(thread_);
}

void Victim::SetBreakpointOf(pid_t id) const {
  // See "Debug registers" in the manual of the processor: DR0 is the address,
  // and bit 0 of DR7 makes it a breakpoint for execution.
  SetDebugRegister(id, 7, 0);
  SetDebugRegister(id, 0, breakpoint_);
  if (breakpoint_ != 0) SetDebugRegister(id, 7, 1);
}

void Victim::Continue(int request, int signal) {
  last_request_ = request;
  if (ptrace(static_cast<__ptrace_request>(request), current_, nullptr,
             static_cast<long>(signal)) != 0) {
    Die("continuing the victim");
  }
}

Victim::State Victim::Resume(int request, bool may_sleep) {
  Continue(request, 0);
  return AwaitStop(request, may_sleep, -1);
}

Victim::State Victim::AwaitStop(int request, bool may_sleep,
                                int64_t sleeps_before) {
  while (true) {
    if (may_sleep && !StopsSoon(sleeps_before)) {
      if (!SwitchToThread()) return State::kAsleep;
      if (request == PTRACE_SINGLESTEP) return State::kStopped;
    } else {
      const bool was_in_step = is_starter_in_step_;
      const std::optional<State> state = AfterStep();
      // After a thread its starter has made a step, whatever is asked for.
      const bool has_stepped = was_in_step && !is_starter_in_step_;
      if (state.has_value() && (request == PTRACE_SINGLESTEP || !has_stepped)) {
        return *state;
      }
    }
    sleeps_before = -1;
    Continue(request, 0);
  }
}

int Victim::Await() const {
  int status = 0;
  if (waitpid(current_, &status, __WALL) != current_) Die("waitpid");
  if (!WIFSTOPPED(status) && current_ == pid_) {
    fprintf(stderr, "victim: it ended by itself: %x\n", status);
    abort();
  }
  return status;
}

std::optional<Victim::State> Victim::AfterStep() {
  while (true) {
    int status = Await();
    if (!WIFSTOPPED(status)) {
      // What the other one has slept for, mostly; it stops after its system
      // call then.
      thread_ = 0;
      current_ = pid_;
      if (!StopsSoon()) return State::kAsleep;
      status = Await();
    }
    if (status >> 8 == (SIGTRAP | PTRACE_EVENT_CLONE << 8)) {
      AdoptThread();
      return std::nullopt;
    }
    if (WSTOPSIG(status) == SIGTRAP) break;
    // One of its own: passed on, and the same done again.
    Continue(last_request_, WSTOPSIG(status));
  }
  if (current_ == pid_ && is_starter_in_step_) {
    is_starter_in_step_ = false;
    SetBreakpointOf(pid_);  // maybe another one than when it fell asleep
  }
  siginfo_t info;
  if (ptrace(PTRACE_GETSIGINFO, current_, nullptr, &info) != 0) {
    Die("GETSIGINFO");
  }
  // A step is TRAP_TRACE, or after a system call the signal itself.
  return info.si_code == SI_KERNEL ? State::kEnded : State::kStopped;
}

void Victim::AdoptThread() {
  unsigned long id = 0;
  if (ptrace(PTRACE_GETEVENTMSG, current_, nullptr, &id) != 0) {
    Die("GETEVENTMSG");
  }
  const bool is_only_one = thread_ == 0;
  thread_ = static_cast<pid_t>(id);
  const std::vector<pid_t> threads = OtherThreads();
  if (!is_only_one ||
      std::find(threads.begin(), threads.end(), thread_) == threads.end()) {
    fprintf(stderr,
            "victim: it has started a second thread while it "
            "had one, or a process that is none\n");
    abort();
  }
  int status = 0;
  if (waitpid(thread_, &status, __WALL) != thread_ || !WIFSTOPPED(status)) {
    Die("waiting for the victim's thread");
  }
  SetBreakpointOf(thread_);
}

bool Victim::SwitchToThread() {
  if (thread_ == 0 || current_ == thread_) return false;
  if (last_request_ != PTRACE_SINGLESTEP) {
    // It is to stop after its system call, so this is interrupted and begins
    // again in a step, which must not be taken for the breakpoint.
    syscall(SYS_tgkill, pid_, pid_, SIGSTOP);
    if (WSTOPSIG(Await()) != SIGSTOP) Die("stopping the victim");
    SetDebugRegister(pid_, 7, 0);
    Continue(PTRACE_SINGLESTEP, 0);
    if (StopsSoon()) Die("the victim is to fall asleep again");
  }
  is_starter_in_step_ = true;
  current_ = thread_;
  return true;
}

std::vector<pid_t> Victim::OtherThreads() const {
  std::vector<pid_t> threads;
  for (const auto& entry : std::filesystem::directory_iterator(
           absl::StrCat("/proc/", pid_, "/task"))) {
    pid_t id = 0;
    if (absl::SimpleAtoi(entry.path().filename().string(), &id) && id != pid_) {
      threads.push_back(id);
    }
  }
  return threads;
}

bool Victim::StopsSoon(int64_t sleeps_before) const {
  // On the same CPU it runs while we yield, if it can.
  for (int i = 0; i < 100; ++i) {
    if (HasStopped()) return true;
    sched_yield();
  }
  int asleep = 0;
  while (asleep < 5) {
    if (HasStopped()) return true;
    const timespec pause = {0, 20'000};
    nanosleep(&pause, nullptr);
    const bool is_asleep =
        ProcessState(current_) == 'S' &&
        (sleeps_before < 0 || VoluntarySwitches(current_) > sleeps_before);
    asleep = is_asleep ? asleep + 1 : 0;
  }
  return false;
}

bool Victim::HasStopped() const {
  siginfo_t info = {};
  if (waitid(P_PID, static_cast<id_t>(current_), &info,
             WSTOPPED | WEXITED | WNOHANG | WNOWAIT | __WALL) != 0) {
    Die("waitid");
  }
  return info.si_pid != 0;
}

}  // namespace ipc::testing
