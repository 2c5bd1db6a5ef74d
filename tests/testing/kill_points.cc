#include "tests/testing/kill_points.h"

#include <dlfcn.h>
#include <link.h>
#include <sched.h>
#include <string.h>

#include <algorithm>
#include <climits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/testing/victim.h"

namespace ipc::testing {
namespace {

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
      : case_(the_case),
        die_asleep_(die_asleep),
        victim_([this] { case_.Prepare(); }, [this] { case_.Operate(); }) {}

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
