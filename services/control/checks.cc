#include "services/control/checks.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "ipc/process/exit_status.h"
#include "services/control/text_check.h"

namespace parley::control {
namespace {

namespace sup = supervisor::v1;

const v1::Process* FindProcess(const v1::Scenario& scenario,
                               const std::string& name) {
  for (const v1::Process& process : scenario.process()) {
    if (process.name() == name) return &process;
  }
  return nullptr;
}

bool ExpectsExit(const v1::Scenario& scenario, const std::string& process) {
  return std::any_of(scenario.expect().begin(), scenario.expect().end(),
                     [&](const v1::Expect& expect) {
                       return expect.process().name() == process &&
                              expect.process().has_exit();
                     });
}

// Whether it ended by one of its ok_exit, or was asked to stop and did.
bool EndedWell(const v1::Process& process, const Outcome& outcome) {
  const sup::ProcessInfo& info = outcome.info;
  if (info.state() != sup::EXITED || !info.error().empty()) return false;
  if (info.exit().how_case() == sup::ExitStatus::kSignal) {
    return outcome.stopping &&
           info.exit().signal() ==
               ipc::process::SignalByName(process.stop().signal());
  }
  return info.exit().how_case() == sup::ExitStatus::kCode &&
         std::find(process.ok_exit().begin(), process.ok_exit().end(),
                   info.exit().code()) != process.ok_exit().end();
}

bool IsAsExpected(const v1::Exit& expected, const sup::ProcessInfo& info) {
  if (info.state() != sup::EXITED || !info.error().empty()) return false;
  if (expected.how_case() == v1::Exit::kCode) {
    return info.exit().how_case() == sup::ExitStatus::kCode &&
           info.exit().code() == expected.code();
  }
  return info.exit().how_case() == sup::ExitStatus::kSignal &&
         info.exit().signal() == ipc::process::SignalByName(expected.signal());
}

// What a process that failed said last is mostly why.
std::string LastWords(const Outcome& outcome) {
  absl::string_view text = absl::StripSuffix(outcome.err, "\n");
  if (text.empty()) return "";
  const size_t newline = text.rfind('\n');
  if (newline != absl::string_view::npos) text.remove_prefix(newline + 1);
  return absl::StrCat("; the last line of its stderr is ", Excerpt(text));
}

v1::Check MakeCheck(std::string name, v1::Check::Result result,
                    std::string detail) {
  v1::Check check;
  check.set_name(std::move(name));
  check.set_result(result);
  check.set_detail(std::move(detail));
  return check;
}

v1::Check CheckEnd(const std::string& name, const Outcome& outcome, bool ok,
                   const std::string& expected) {
  std::string title = absl::StrCat(name, " exit");
  if (!outcome.cut_short.empty()) {
    return MakeCheck(
        std::move(title), v1::Check::INCONCLUSIVE,
        absl::StrCat("expected ", expected, ", but ", outcome.cut_short));
  }
  if (ok) return MakeCheck(std::move(title), v1::Check::PASSED, "");
  const bool is_unknown =
      outcome.info.state() == sup::EXITED &&
      outcome.info.exit().how_case() == sup::ExitStatus::HOW_NOT_SET;
  return MakeCheck(std::move(title),
                   is_unknown ? v1::Check::INCONCLUSIVE : v1::Check::FAILED,
                   absl::StrCat("expected ", expected, ", seen: ",
                                DescribeEnd(outcome.info), LastWords(outcome)));
}

v1::Check CheckStream(std::string title, const v1::Text& expected,
                      const std::string& seen, const Outcome& outcome) {
  if (!outcome.cut_short.empty()) {
    return MakeCheck(
        std::move(title), v1::Check::INCONCLUSIVE,
        absl::StrCat(outcome.cut_short, "; seen until then: ", Excerpt(seen)));
  }
  if (outcome.dropped > 0) {
    return MakeCheck(std::move(title), v1::Check::INCONCLUSIVE,
                     absl::StrCat(outcome.dropped,
                                  " bytes of its output were dropped, because "
                                  "it printed faster than they were read"));
  }
  std::string wrong = CheckText(expected, seen);
  const auto result = wrong.empty() ? v1::Check::PASSED : v1::Check::FAILED;
  return MakeCheck(std::move(title), result, std::move(wrong));
}

void CheckExpect(const v1::ProcessExpect& expect, const Outcome& outcome,
                 std::vector<v1::Check>& checks) {
  const std::string& name = expect.name();
  if (expect.has_exit()) {
    const v1::Exit& exit = expect.exit();
    checks.push_back(CheckEnd(
        name, outcome, IsAsExpected(exit, outcome.info),
        exit.how_case() == v1::Exit::kCode
            ? absl::StrCat("exit code ", exit.code())
            : absl::StrCat("death by ",
                           ipc::process::SignalName(
                               ipc::process::SignalByName(exit.signal())))));
  }
  if (expect.has_stdout()) {
    checks.push_back(CheckStream(absl::StrCat(name, " stdout"), expect.stdout(),
                                 outcome.out, outcome));
  }
  if (expect.has_stderr()) {
    checks.push_back(CheckStream(absl::StrCat(name, " stderr"), expect.stderr(),
                                 outcome.err, outcome));
  }
}

}  // namespace

std::vector<v1::Check> EvaluateChecks(const v1::Scenario& scenario,
                                      const Outcomes& outcomes) {
  const auto outcome_of = [&](const std::string& name) {
    const auto found = outcomes.find(name);
    return found == outcomes.end()
               ? Outcome{.cut_short = "nothing was heard of it"}
               : found->second;
  };
  std::vector<v1::Check> checks;
  for (const v1::Process& process : scenario.process()) {
    if (ExpectsExit(scenario, process.name())) continue;
    const Outcome outcome = outcome_of(process.name());
    checks.push_back(CheckEnd(
        process.name(), outcome, EndedWell(process, outcome),
        absl::StrCat("exit code ", absl::StrJoin(process.ok_exit(), " or "))));
  }
  for (const v1::Expect& expect : scenario.expect()) {
    CheckExpect(expect.process(), outcome_of(expect.process().name()), checks);
  }
  return checks;
}

bool EndedBadly(const v1::Scenario& scenario, const Outcome& outcome) {
  if (!HasEnded(outcome.info)) return false;
  // It never ran, or was not ready in time: no `expect` can mean that.
  if (outcome.info.state() == sup::FAILED || !outcome.info.error().empty()) {
    return true;
  }
  if (ExpectsExit(scenario, outcome.info.name())) return false;
  const v1::Process* process = FindProcess(scenario, outcome.info.name());
  return process != nullptr && !EndedWell(*process, outcome);
}

}  // namespace parley::control
