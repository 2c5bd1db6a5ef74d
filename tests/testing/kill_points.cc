#include "tests/testing/kill_points.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/testing/process_state.h"
#include "tests/testing/repeatable_heap.h"

namespace ipc::testing {
namespace {

// Marks the begin and the end of the operation: stops the victim at exactly the
// next instruction.
inline void Breakpoint() { asm volatile("int3" ::: "memory"); }

void Die(const char* what) {
  fprintf(stderr, "kill_points: %s: %s\n", what, strerror(errno));
  abort();
}

// Keeps this process and its children on one CPU, for as long as it lives.
class OneCpu {
 public:
  OneCpu() {
    sched_getaffinity(0, sizeof(before_), &before_);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof(one), &one);
  }
  ~OneCpu() { sched_setaffinity(0, sizeof(before_), &before_); }

 private:
  cpu_set_t before_;
};

// The code of the program, or of a library by a part of its file's name. The
// victim's is where ours is.
class Code {
 public:
  static Code OfProgram() { return Code(""); }
  explicit Code(const std::string& library) : library_(library) {
    dl_iterate_phdr(&Add, this);
  }
  bool Contains(uint64_t address) const {
    return std::any_of(ranges_.begin(), ranges_.end(), [&](const auto& range) {
      return range.first <= address && address < range.second;
    });
  }

 private:
  static int Add(dl_phdr_info* info, size_t, void* code) {
    Code& self = *static_cast<Code*>(code);
    // The program has no name.
    const bool is_it =
        self.library_.empty()
            ? info->dlpi_name[0] == '\0'
            : strstr(info->dlpi_name, self.library_.c_str()) != nullptr;
    if (!is_it) return 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const auto& part = info->dlpi_phdr[i];
      if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0) continue;
      const uint64_t begin = info->dlpi_addr + part.p_vaddr;
      self.ranges_.emplace_back(begin, begin + part.p_memsz);
    }
    return 0;
  }

  std::string library_;
  std::vector<std::pair<uint64_t, uint64_t>> ranges_;
};

// The one that is stepped through. Killed and reaped when destroyed.
//
// A thread that it starts runs from when its starter falls asleep, as it does
// in pthread_join(3), until it ends; so there is one order of instructions. It
// may have one such thread at a time.
class Victim {
 public:
  enum class State {
    kStopped,  // before its next instruction
    kAsleep,   // in a system call
    kEnded,    // at the end of the operation
  };

  explicit Victim(KillPointCase& the_case) : pid_(fork()), current_(pid_) {
    if (pid_ < 0) Die("fork");
    if (pid_ == 0) {
      if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) Die("TRACEME");
      UseRepeatableHeap();
      the_case.Prepare();
      Breakpoint();
      the_case.Operate();
      Breakpoint();
      _exit(0);
    }
    // Up to the first breakpoint; signals of Prepare are delivered.
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
  ~Victim() {
    kill(pid_, SIGKILL);
    // The process is not reaped before its threads, which may be more than one
    // if it has woken by itself.
    for (const pid_t thread : OtherThreads()) Reap(thread);
    Reap(pid_);
  }

  uint64_t address() const {
    errno = 0;
    const long address = ptrace(PTRACE_PEEKUSER, current_,
                                offsetof(user_regs_struct, rip), nullptr);
    if (errno != 0) Die("PEEKUSER");
    return static_cast<uint64_t>(address);
  }

  // One instruction. REQUIRES: it is stopped.
  State Step() {
    // The child's code is where ours is.
    const auto* code = reinterpret_cast<const unsigned char*>(address());
    const bool may_sleep = code[0] == 0x0f && code[1] == 0x05;  // syscall
    return Resume(PTRACE_SINGLESTEP, may_sleep);
  }
  // To where the function returns whose first instruction is next.
  State StepOut() {
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
  // To the breakpoint or the end.
  State Go() { return Resume(PTRACE_CONT, true); }
  // How often the one that is asleep has fallen asleep.
  int64_t Sleeps() const { return VoluntarySwitches(current_); }
  // After Wake: until it has done what it had been told to, or sleeps again in
  // another call, for which it has to have slept more often than
  // `sleeps_before`.
  State AwaitWaking(int64_t sleeps_before) {
    // A step ends with the system call that has slept.
    const bool may_sleep = last_request_ != PTRACE_SINGLESTEP;
    return AwaitStop(last_request_, may_sleep, sleeps_before);
  }

  // At the instruction at `address`, which is not yet executed then; 0: none.
  void SetBreakpoint(uint64_t address) {
    breakpoint_ = address;
    SetBreakpointOf(current_);
    // If it was started and has not begun.
    if (thread_ != 0 && current_ == pid_) SetBreakpointOf(thread_);
  }

 private:
  static void Reap(pid_t id) {
    int status;
    // Tells of a stop first, if it was at one.
    while (waitpid(id, &status, __WALL) == id && WIFSTOPPED(status)) {
    }
  }

  void SetBreakpointOf(pid_t id) const {
    // See "Debug registers" in the manual of the processor: DR0 is the address,
    // and bit 0 of DR7 makes it a breakpoint for execution.
    SetDebugRegister(id, 7, 0);
    SetDebugRegister(id, 0, breakpoint_);
    if (breakpoint_ != 0) SetDebugRegister(id, 7, 1);
  }
  static void SetDebugRegister(pid_t id, size_t number, uint64_t value) {
    const size_t offset =
        offsetof(struct user, u_debugreg) + number * sizeof(value);
    if (ptrace(PTRACE_POKEUSER, id, offset, value) != 0) {
      Die("setting a breakpoint");
    }
  }

  void Continue(int request, int signal) {
    last_request_ = request;
    if (ptrace(static_cast<__ptrace_request>(request), current_, nullptr,
               static_cast<long>(signal)) != 0) {
      Die("continuing the victim");
    }
  }

  State Resume(int request, bool may_sleep) {
    Continue(request, 0);
    return AwaitStop(request, may_sleep, -1);
  }

  // What came of `request`, which may be a thread's turn.
  State AwaitStop(int request, bool may_sleep, int64_t sleeps_before) {
    while (true) {
      if (may_sleep && !StopsSoon(sleeps_before)) {
        if (!SwitchToThread()) return State::kAsleep;
        if (request == PTRACE_SINGLESTEP) return State::kStopped;
      } else {
        const bool was_in_step = is_starter_in_step_;
        const std::optional<State> state = AfterStep();
        // After a thread its starter has made a step, whatever is asked for.
        const bool has_stepped = was_in_step && !is_starter_in_step_;
        if (state.has_value() &&
            (request == PTRACE_SINGLESTEP || !has_stepped)) {
          return *state;
        }
      }
      sleeps_before = -1;
      Continue(request, 0);
    }
  }

  // Waits for a stop, or the end of a thread, and returns the status.
  int Await() const {
    int status = 0;
    if (waitpid(current_, &status, __WALL) != current_) Die("waitpid");
    if (!WIFSTOPPED(status) && current_ == pid_) {
      fprintf(stderr, "kill_points: the victim ended by itself: %x\n", status);
      abort();
    }
    return status;
  }

  // What became of it, which has stopped or ended; nothing yet if it has
  // started a thread.
  std::optional<State> AfterStep() {
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

  // The one that the victim has just started, and which has not yet run.
  void AdoptThread() {
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
              "kill_points: the victim has started a second thread while it "
              "had one, or a process that is none\n");
      abort();
    }
    int status = 0;
    if (waitpid(thread_, &status, __WALL) != thread_ || !WIFSTOPPED(status)) {
      Die("waiting for the victim's thread");
    }
    SetBreakpointOf(thread_);
  }

  // While its starter sleeps. False if there is none, or it is the sleeper.
  bool SwitchToThread() {
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

  std::vector<pid_t> OtherThreads() const {
    std::vector<pid_t> threads;
    for (const auto& entry : std::filesystem::directory_iterator(
             absl::StrCat("/proc/", pid_, "/task"))) {
      pid_t id = 0;
      if (absl::SimpleAtoi(entry.path().filename().string(), &id) &&
          id != pid_) {
        threads.push_back(id);
      }
    }
    return threads;
  }

  // False if it sleeps: the kernel says so, again and again, and that it has
  // fallen asleep more often than `sleeps_before`.
  bool StopsSoon(int64_t sleeps_before = -1) const {
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

  bool HasStopped() const {
    siginfo_t info = {};
    if (waitid(P_PID, static_cast<id_t>(current_), &info,
               WSTOPPED | WEXITED | WNOHANG | WNOWAIT | __WALL) != 0) {
      Die("waitid");
    }
    return info.si_pid != 0;
  }

  const pid_t pid_;
  // The one whose instructions are looked at: the process or its thread.
  pid_t current_;
  pid_t thread_ = 0;
  bool is_starter_in_step_ = false;  // asleep in it, while its thread runs
  uint64_t breakpoint_ = 0;
  int last_request_ = PTRACE_CONT;
};

// The addresses of the instructions of an operation in their order, as far as
// they are known from the runs before, and where it fell asleep.
class Trace {
 public:
  int size() const { return static_cast<int>(addresses_.size()); }
  bool IsSameWay(const Trace& other) const {
    return addresses_ == other.addresses_;
  }
  uint64_t operator[](int i) const {
    return addresses_[static_cast<size_t>(i)];
  }
  void Append(uint64_t address) {
    addresses_.push_back(address);
    ++passes_[address];
  }
  // A string instruction with a repeat prefix is a step for each repetition,
  // but meets a breakpoint only before the first.
  bool MeetsBreakpoint(int i) const {
    return i == 0 || (*this)[i] != (*this)[i - 1];
  }
  // Of the last instructions up to the k'th, the one that is passed least
  // often: there one recognises best where one is.
  int Landmark(int k) const {
    int best = k;
    for (int i = k; i >= 0; --i) {
      if (!MeetsBreakpoint(i)) continue;
      if (!MeetsBreakpoint(best) || Passes(i) < Passes(best)) best = i;
      if (i <= k - kWayFromLandmark || Passes(best) == 1) break;
    }
    return best;
  }

  int sleep_at = INT_MAX;  // before the instruction of this number

 private:
  // So that a landmark is better than the inside of a loop, and cheap.
  static constexpr int kWayFromLandmark = 100;

  int Passes(int i) const { return passes_.at((*this)[i]); }

  std::vector<uint64_t> addresses_;
  std::unordered_map<uint64_t, int> passes_;
};

// Runs one victim up to its k'th instruction. If it falls asleep before, it is
// woken, unless that is where it is to die. REQUIRES: the trace is known up to
// k.
//
// All but the last steps are taken at once, by a hardware breakpoint at a
// landmark, which has to be passed as often as the trace says. The rest has to
// go by the addresses of the trace: how often a loop is run through may depend
// on the time, and a place in it means little.
class Run {
 public:
  Run(KillPointCase& the_case, bool die_asleep)
      : case_(the_case), die_asleep_(die_asleep), victim_(the_case) {}

  // To the landmark before k. False if the operation took another way than in
  // the trace.
  bool LeapTo(int k, const Trace& trace) {
    k = trace.Landmark(k);
    if (k == 0) return true;
    victim_.SetBreakpoint(trace[k]);
    for (int i = 0; i <= k; ++i) {
      if (trace[i] != trace[k] || !trace.MeetsBreakpoint(i)) continue;
      Victim::State state = victim_.Go();
      while (state == Victim::State::kAsleep) {
        if (trace.sleep_at >= k || !WakeUp(&state)) {
          stopped_ = false;
          return false;
        }
      }
      if (state == Victim::State::kEnded) return false;
    }
    victim_.SetBreakpoint(0);
    point_.instructions = k;
    return true;
  }

  // False if there is no next instruction to come to. A look at the clock is
  // one, as the kernel's page for it may take one way or another, and does
  // nothing that anybody sees.
  bool Step(Trace* trace) {
    static const Code clock("vdso");
    Victim::State state = victim_.Step();
    if (state == Victim::State::kStopped && clock.Contains(victim_.address())) {
      state = victim_.StepOut();
    }
    while (state == Victim::State::kAsleep) {
      trace->sleep_at = std::min(trace->sleep_at, point_.instructions);
      if (!WakeUp(&state)) return false;
    }
    if (state == Victim::State::kEnded) {
      point_.completed = true;
      return false;
    }
    ++point_.instructions;
    return true;
  }

  int instructions() const { return point_.instructions; }
  KillPoint point() const {
    KillPoint point = point_;
    if (stopped_) point.address = victim_.address();
    return point;
  }

 private:
  // False if it sleeps on.
  bool WakeUp(Victim::State* state) {
    const int64_t sleeps = victim_.Sleeps();
    if (die_asleep_ || !case_.Wake()) {
      point_.asleep = true;
      stopped_ = false;
      return false;
    }
    point_.woken = true;
    *state = victim_.AwaitWaking(sleeps);
    return true;
  }

  KillPointCase& case_;
  const bool die_asleep_;
  Victim victim_;
  bool stopped_ = true;
  KillPoint point_;
};

KillPoint RunTo(KillPointCase& the_case, int k, bool die_asleep, Trace* trace) {
  // One victim at a time: the first, if it went astray, has had its effect on
  // the case, so that a second one is no use. Then this point is where it
  // ended.
  Run run(the_case, die_asleep);
  const int known = std::min(k, trace->size() - 1);
  if (known > 0 && !run.LeapTo(known, *trace)) {
    KillPoint point = run.point();
    point.astray = !point.asleep;
    return point;
  }
  while (true) {
    KillPoint point = run.point();
    if (trace->size() == point.instructions) {
      trace->Append(point.address);
    } else if (point.address != (*trace)[point.instructions]) {
      point.astray = true;
      return point;
    }
    if (point.instructions == k) return point;
    if (!run.Step(trace)) return run.point();
  }
}

// Which instructions of a trace are coarse. Those of a library begin when it is
// entered and end when the program itself goes on.
std::vector<bool> FindCoarse(const Trace& trace, const Coarse& coarse) {
  const Code program = Code::OfProgram();
  const Code library(coarse.library);
  std::vector<bool> is_coarse;
  std::unordered_map<uint64_t, int> passes;
  bool is_inside = false;
  for (int i = 0; i < trace.size(); ++i) {
    if (!coarse.library.empty()) {
      if (library.Contains(trace[i])) is_inside = true;
      if (program.Contains(trace[i])) is_inside = false;
    }
    is_coarse.push_back(is_inside || ++passes[trace[i]] > coarse.passes);
  }
  return is_coarse;
}

}  // namespace

std::string KillPoint::ToString() const {
  std::string text = absl::StrCat("killed after ", instructions,
                                  " instructions", woken ? ", once woken" : "");
  if (completed) return absl::StrCat(text, ", at the end");
  if (asleep) return absl::StrCat(text, ", asleep");
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(address), &info) == 0) {
    return absl::StrCat(text, ", at 0x", absl::Hex(address));
  }
  const bool named = info.dli_sname != nullptr;
  return absl::StrCat(
      text, ", at ", named ? info.dli_sname : info.dli_fname, "+0x",
      absl::Hex(address - reinterpret_cast<uint64_t>(named ? info.dli_saddr
                                                           : info.dli_fbase)));
}

KillPointReport KillAtEveryInstruction(
    const std::function<std::unique_ptr<KillPointCase>()>& make_case,
    int stride, const Coarse& coarse) {
  const OneCpu one_cpu;
  KillPointReport report;
  Trace trace;
  // Makes a case and kills its victim there. False if the check failed.
  const auto kill_at = [&](int k, bool die_asleep, KillPoint* point) {
    std::unique_ptr<KillPointCase> the_case;
    do {
      the_case = make_case();
      *point = RunTo(*the_case, k, die_asleep, &trace);
      the_case->Check(*point);
      if (::testing::Test::HasFailure()) {
        ADD_FAILURE() << point->ToString();
        return false;
      }
    } while (the_case->IsInDoubt());
    return true;
  };
  std::vector<bool> is_coarse;
  const auto next_after = [&](int k) {
    int next = k + stride;
    while (next < k + coarse.stride &&
           static_cast<size_t>(next) < is_coarse.size() &&
           is_coarse[static_cast<size_t>(next)]) {
      ++next;
    }
    return next;
  };
  // Goes all the way, as the next ones will. False if the check failed.
  const auto find_way = [&] {
    trace = Trace();
    if (coarse.stride == 1) return true;  // the next one learns it as it goes
    KillPoint end;
    if (!kill_at(INT_MAX, false, &end)) return false;
    is_coarse = FindCoarse(trace, coarse);
    return true;
  };
  // The first victim may take another way than all others, since the checks of
  // those before may have left something in this process, such as the stack of
  // a thread that has ended.
  Trace last;
  for (int i = 0; i < 3 && (i == 0 || !trace.IsSameWay(last)); ++i) {
    last = trace;
    if (!find_way()) return report;
  }
  bool slept = false;
  int k = 0;
  while (true) {
    KillPoint point;
    if (!kill_at(k, false, &point)) return report;
    if (point.woken && !slept) {
      // The first one that came past the sleep: once more, to die in it.
      KillPoint asleep;
      if (!kill_at(k, true, &asleep)) return report;
      slept = asleep.asleep;  // else it went astray: with the next one
      report.asleep += slept ? 1 : 0;
      report.points += slept ? 1 : 0;
    }
    if (point.astray) {
      // Somewhere it took another way than the runs that the trace is from, for
      // instance in reading the clock. The same point is tried again.
      if (++report.astray > 10 + report.points / 10) {
        ADD_FAILURE() << "the operation takes another way each time";
        return report;
      }
      if (!find_way()) return report;
      continue;
    }
    if (point.completed) {
      report.completed = 1;
      return report;
    }
    ++report.points;
    if (point.asleep) {
      ++report.asleep;
      return report;
    }
    k = next_after(k);
  }
}

}  // namespace ipc::testing
