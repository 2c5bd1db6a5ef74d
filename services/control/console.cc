#include "services/control/console.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "google/protobuf/util/json_util.h"
#include "services/supervisor/proto_time.h"

namespace parley::control {
namespace {

constexpr char kRed[] = "31";
constexpr char kGreen[] = "32";
constexpr char kYellow[] = "33";
constexpr char kCyan[] = "36";

// A line longer than this is shown in parts.
constexpr size_t kLongestLine = 64 << 10;

const char* ColorOf(v1::Verdict::Result result) {
  if (result == v1::Verdict::PASSED) return kGreen;
  return result == v1::Verdict::INCONCLUSIVE ? kYellow : kRed;
}

const char* Title(v1::Verdict::Result result) {
  switch (result) {
    case v1::Verdict::PASSED:
      return "PASSED";
    case v1::Verdict::FAILED:
      return "FAILED";
    case v1::Verdict::INCONCLUSIVE:
      return "INCONCLUSIVE";
    case v1::Verdict::TIME_LIMIT:
      return "TIME LIMIT";
    default:
      return "INFRASTRUCTURE ERROR";
  }
}

std::string ShortName(const std::string& name) {
  return name.substr(name.rfind('/') + 1);
}

}  // namespace

void Console::Show(const v1::RunScenarioResponse& event) {
  if (options_.json) {
    std::string json;
    // Fails for messages with Any only.
    (void)google::protobuf::util::MessageToJsonString(event, &json);
    write_(absl::StrCat(json, "\n"));
    return;
  }
  switch (event.event_case()) {
    case v1::RunScenarioResponse::kStarted:
      scenario_ = event.started().scenario();
      seed_ = event.started().seed();
      checks_.clear();
      break;
    case v1::RunScenarioResponse::kProcess:
      ShowProcess(event.process());
      break;
    case v1::RunScenarioResponse::kOutput:
      ShowOutput(event.output());
      break;
    case v1::RunScenarioResponse::kCheck:
      checks_.push_back(event.check());
      break;
    case v1::RunScenarioResponse::kVerdict:
      ShowVerdict(event.verdict());
      break;
    case v1::RunScenarioResponse::EVENT_NOT_SET:
      break;
  }
}

std::string Console::Colored(const char* color, absl::string_view text) const {
  if (!options_.color) return std::string(text);
  return absl::StrCat("\033[", color, "m", text, "\033[0m");
}

std::string Console::Prefix(const std::string& process,
                            v1::Output::Stream stream) const {
  return Colored(
      stream == v1::Output::STDERR ? kRed : kCyan,
      absl::StrCat(process, stream == v1::Output::STDERR ? " !" : " |"));
}

void Console::ShowOutput(const v1::Output& output) {
  const std::string prefix = Prefix(output.process(), output.stream());
  std::string& partial = partial_[{output.process(), output.stream()}];
  std::string lines;
  if (output.dropped() > 0) {
    if (!partial.empty()) absl::StrAppend(&lines, prefix, " ", partial, "\n");
    partial.clear();
    absl::StrAppend(&lines, prefix, " ",
                    Colored(kYellow, absl::StrCat("[", output.dropped(),
                                                  " bytes dropped]")),
                    "\n");
  }
  absl::string_view rest = output.data();
  for (size_t end; (end = rest.find('\n')) != absl::string_view::npos;) {
    absl::StrAppend(&lines, prefix, " ", partial, rest.substr(0, end + 1));
    partial.clear();
    rest.remove_prefix(end + 1);
  }
  absl::StrAppend(&partial, rest);
  if (partial.size() > kLongestLine) {
    absl::StrAppend(&lines, prefix, " ", partial, "\n");
    partial.clear();
  }
  if (!lines.empty()) write_(lines);
}

void Console::ShowProcess(const v1::ProcessStatus& process) {
  const std::string name = ShortName(process.name());
  if (process.state() == v1::ProcessStatus::EXITED) Flush(name);
  if (!options_.states) return;
  std::string line =
      absl::StrCat(name, " * ", v1::ProcessStatus::State_Name(process.state()));
  if (process.exit().how_case() == v1::ExitStatus::kCode) {
    absl::StrAppend(&line, " with ", process.exit().code());
  } else if (process.exit().how_case() == v1::ExitStatus::kSignal) {
    absl::StrAppend(&line, " by signal ", process.exit().signal());
  } else if (process.state() == v1::ProcessStatus::STARTED) {
    absl::StrAppend(&line, " as process ", process.pid());
  }
  if (!process.error().empty()) absl::StrAppend(&line, ": ", process.error());
  write_(absl::StrCat(line, "\n"));
}

void Console::Flush(const std::string& process) {
  for (const auto stream : {v1::Output::STDOUT, v1::Output::STDERR}) {
    const auto found = partial_.find({process, stream});
    if (found == partial_.end()) continue;
    if (!found->second.empty()) {
      write_(absl::StrCat(Prefix(process, stream), " ", found->second, "\n"));
    }
    partial_.erase(found);
  }
}

void Console::FlushAll() {
  while (!partial_.empty()) Flush(std::string(partial_.begin()->first.first));
}

void Console::ShowVerdict(const v1::Verdict& verdict) {
  FlushAll();
  const size_t failed =
      std::count_if(checks_.begin(), checks_.end(), [](const v1::Check& check) {
        return check.result() == v1::Check::FAILED;
      });
  std::string text =
      Colored(ColorOf(verdict.result()), Title(verdict.result()));
  const double seconds =
      absl::ToDoubleSeconds(supervisor::FromProto(verdict.duration()));
  absl::StrAppend(&text, " ", scenario_, " (");
  if (failed > 0) absl::StrAppend(&text, failed, " of ");
  absl::StrAppend(&text, checks_.size(),
                  checks_.size() == 1 && failed == 0 ? " check" : " checks",
                  failed > 0 ? " failed" : "",
                  absl::StrFormat(", %.2f s", seconds));
  // Without it nobody could run the same again.
  if (verdict.result() != v1::Verdict::PASSED) {
    absl::StrAppend(&text, ", seed ", seed_);
  }
  absl::StrAppend(&text, ")\n");
  if (verdict.result() == v1::Verdict::INFRASTRUCTURE ||
      verdict.result() == v1::Verdict::TIME_LIMIT) {
    absl::StrAppend(&text, "  ", verdict.detail(), "\n");
  }
  for (const v1::Check& check : checks_) {
    if (check.result() == v1::Check::PASSED) continue;
    const bool is_failure = check.result() == v1::Check::FAILED;
    absl::StrAppend(
        &text, "  ",
        Colored(is_failure ? kRed : kYellow,
                absl::StrCat(check.name(), is_failure ? "" : " (inconclusive)",
                             ":")),
        " ", absl::StrReplaceAll(check.detail(), {{"\n", "\n    "}}), "\n");
  }
  write_(text);
}

}  // namespace parley::control
