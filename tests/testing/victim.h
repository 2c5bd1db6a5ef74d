// A child process that runs an operation step by step under ptrace(2), and is
// killed somewhere in it: what KillAtEveryInstruction (kill_points.h) drives.
//
//   Victim victim([&] { queue.Attach(); }, [&] { queue.Send("message"); });
//   victim.SetBreakpoint(address);  // leaps there, by a debug register
//   if (victim.Go() == Victim::State::kStopped) victim.Step();
//   // and dies
//
// A thread that the operation starts runs from when its starter falls asleep,
// as it does in pthread_join(3), until it ends; so there is one order of
// instructions. It may have one such thread at a time.
//
// x86-64 only. Parent and child share one CPU. What fails aborts with a
// message. Not thread-safe.
#ifndef TESTS_TESTING_VICTIM_H_
#define TESTS_TESTING_VICTIM_H_

#include <sys/ptrace.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"

namespace ipc::testing {

class Victim {
 public:
  enum class State {
    kStopped,  // before its next instruction
    kAsleep,   // in a system call
    kEnded,    // at the end of the operation
  };

  // Forks it, and returns when it has run `prepare` and is before the first
  // instruction of `operate`. What they allocate is where it was the last time:
  // see repeatable_heap.h.
  Victim(absl::FunctionRef<void()> prepare, absl::FunctionRef<void()> operate);
  // Kills and reaps it.
  ~Victim();
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;

  // Of the next instruction.
  uint64_t address() const;

  // One instruction. REQUIRES: it is stopped.
  State Step();
  // To where the function returns whose first instruction is next.
  State StepOut();
  // To the breakpoint or the end.
  State Go() { return Resume(PTRACE_CONT, true); }
  // How often the one that is asleep has fallen asleep.
  int64_t Sleeps() const;
  // Once it has been woken: until it has done what it had been told to, or
  // sleeps again in another call, for which it has to have slept more often
  // than `sleeps_before`.
  State AwaitWaking(int64_t sleeps_before);

  // At the instruction at `address`, which is not yet executed then; 0: none.
  void SetBreakpoint(uint64_t address);

 private:
  void SetBreakpointOf(pid_t id) const;

  void Continue(int request, int signal);
  State Resume(int request, bool may_sleep);
  // What came of `request`, which may be a thread's turn.
  State AwaitStop(int request, bool may_sleep, int64_t sleeps_before);
  // Waits for a stop, or the end of a thread, and returns the status.
  int Await() const;
  // What became of it, which has stopped or ended; nothing yet if it has
  // started a thread.
  std::optional<State> AfterStep();

  // The one that the victim has just started, and which has not yet run.
  void AdoptThread();
  // While its starter sleeps. False if there is none, or it is the sleeper.
  bool SwitchToThread();
  std::vector<pid_t> OtherThreads() const;

  // False if it sleeps: the kernel says so, again and again, and that it has
  // fallen asleep more often than `sleeps_before`.
  bool StopsSoon(int64_t sleeps_before = -1) const;
  bool HasStopped() const;

  const pid_t pid_;
  // The one whose instructions are looked at: the process or its thread.
  pid_t current_;
  pid_t thread_ = 0;
  bool is_starter_in_step_ = false;  // asleep in it, while its thread runs
  uint64_t breakpoint_ = 0;
  int last_request_ = PTRACE_CONT;
};

}  // namespace ipc::testing

#endif  // TESTS_TESTING_VICTIM_H_
