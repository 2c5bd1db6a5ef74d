#include "services/control/run_command.h"

#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/process/children.h"
#include "services/control/binaries.h"
#include "services/control/console.h"
#include "services/control/embedded_run.h"
#include "services/control/exit_codes.h"
#include "services/control/interrupt.h"
#include "services/control/junit.h"
#include "services/control/plan.h"
#include "services/control/remote_run.h"
#include "services/control/report.h"
#include "services/control/report_files.h"
#include "services/control/scenario_parser.h"
#include "services/control/test_environment.h"

namespace parley::control {
namespace {

constexpr char kInvalid[] = "invalid";
constexpr char kSupervisorLabel[] = "//services/supervisor";

void Complain(absl::string_view text) {
  fprintf(stderr, "parley: %s\n", std::string(text).c_str());
}

std::optional<v1::Verdict::Result> VerdictByName(absl::string_view name) {
  for (const auto result :
       {v1::Verdict::PASSED, v1::Verdict::FAILED, v1::Verdict::INCONCLUSIVE,
        v1::Verdict::TIME_LIMIT}) {
    if (VerdictName(result) == name) return result;
  }
  return std::nullopt;
}

class Runner {
 public:
  Runner(const RunCommandOptions& options, Interrupt& interrupt)
      : options_(options),
        interrupt_(interrupt),
        environment_(TestEnvironment::Get()),
        deadline_(ipc::Deadline::After(environment_.time_limit)),
        binaries_(RunfilesRoots(options.argv0, options.workspace)) {}

  int Run() {
    const absl::Status touched = environment_.TouchShardStatusFile();
    if (!touched.ok()) {
      Complain(touched.message());
      return kExitInfrastructure;
    }
    const int planned = PlanAll();
    if (planned != kExitOk || options_.verdict == kInvalid) return planned;
    if (options_.connect.empty() && !FindSupervisor()) return kExitUsage;
    int exit_code = kExitOk;
    for (size_t i = 0; i < plans_.size() && interrupt_.signal() == 0; ++i) {
      if (environment_.Selects(static_cast<int>(i),
                               plans_[i].scenario.name())) {
        exit_code = WorseExitCode(exit_code, RunOne(i));
      }
    }
    if (!WriteReports()) {
      exit_code = WorseExitCode(exit_code, kExitInfrastructure);
    }
    return interrupt_.signal() != 0 ? interrupt_.exit_code() : exit_code;
  }

 private:
  // All of them, so that everything that is wrong is told at once.
  int PlanAll() {
    std::random_device random;
    const uint64_t seed =
        environment_.random_seed != 0 ? environment_.random_seed : random();
    int invalid = 0;
    for (const std::string& file : options_.files) {
      absl::StatusOr<ParsedScenario> parsed = ParseScenarioFile(file);
      absl::Status status = parsed.status();
      if (parsed.ok()) {
        if (options_.seed != 0) parsed->scenario.set_seed(options_.seed);
        absl::StatusOr<Plan> plan =
            MakePlan(*parsed, {.binaries = &binaries_,
                               .seed = seed,
                               .environment = BaseEnvironment()});
        status = plan.status();
        if (plan.ok()) plans_.push_back(*std::move(plan));
      }
      if (status.ok()) continue;
      // A file that cannot be read is not what --verdict=invalid asks for.
      if (status.code() != absl::StatusCode::kInvalidArgument) {
        Complain(status.message());
        return kExitUsage;
      }
      fprintf(stderr, "%s\n", std::string(status.message()).c_str());
      ++invalid;
    }
    if (options_.verdict != kInvalid) {
      return invalid == 0 ? kExitOk : kExitUsage;
    }
    if (plans_.empty()) return kExitOk;
    Complain(absl::StrCat("expected to be refused, but valid: scenario ",
                          plans_[0].scenario.name()));
    return kExitFailed;
  }

  bool FindSupervisor() {
    absl::StatusOr<std::string> found = binaries_.Resolve(
        options_.supervisor.empty() ? kSupervisorLabel : options_.supervisor,
        ".");
    if (!found.ok()) {
      Complain(absl::StrCat("find the supervisor: ", found.status().message(),
                            "; or name it by --supervisor"));
      return false;
    }
    supervisor_ = *std::move(found);
    return true;
  }

  int RunOne(size_t i) {
    const Plan& plan = plans_[i];
    Report& report = reports_.emplace_back();
    report.scenario = plan.scenario.name();
    report.file = options_.files[i];
    report.expected = *VerdictByName(options_.verdict);
    report.reproduce =
        environment_.target.empty()
            ? absl::StrCat("parley run --seed=", plan.scenario.seed(), " ",
                           report.file)
            : absl::StrCat("bazel test ", environment_.target,
                           " --test_arg=--seed=", plan.scenario.seed());
    Console console({.color = isatty(STDOUT_FILENO) == 1,
                     .states = options_.verbose,
                     .json = options_.json},
                    [](absl::string_view text) {
                      fwrite(text.data(), 1, text.size(), stdout);
                      fflush(stdout);
                    });
    const auto emit = [&](const v1::RunScenarioResponse& event) {
      console.Show(event);
      report.Add(event);
    };
    const RunOptions run = {
        .session = {},
        .time_limit = deadline_.is_infinite() ? absl::InfiniteDuration()
                                              : deadline_.Remaining(),
        .cancelled = [this] { return interrupt_.signal() != 0; }};
    if (options_.connect.empty()) {
      RunEmbedded(supervisor_, plan, run, emit);
    } else {
      RunRemotely(options_.connect, plan, run, emit);
    }
    if (report.AsExpected()) {
      if (report.expected != v1::Verdict::PASSED && !options_.json) {
        printf("verdict %s, as expected\n", options_.verdict.c_str());
      }
      return kExitOk;
    }
    if (report.expected != v1::Verdict::PASSED) {
      Complain(absl::StrCat("expected verdict ", options_.verdict, ", seen ",
                            VerdictName(report.verdict.result())));
      if (report.verdict.result() == v1::Verdict::PASSED) return kExitFailed;
    }
    return ExitCodeOf(report.verdict.result());
  }

  bool WriteReports() {
    absl::Status status;
    const std::string xml = ToJUnitXml(reports_);
    for (const std::string& file :
         {options_.junit, environment_.xml_output_file}) {
      if (!file.empty()) status.Update(WriteFile(file, xml));
    }
    for (const std::string& directory :
         {options_.log_dir, environment_.undeclared_outputs_dir}) {
      if (directory.empty()) continue;
      for (const Report& report : reports_) {
        status.Update(WriteLogs(directory, report));
      }
    }
    if (!status.ok()) Complain(status.message());
    return status.ok();
  }

  const RunCommandOptions& options_;
  Interrupt& interrupt_;
  const TestEnvironment environment_;
  const ipc::Deadline deadline_;
  const BinaryResolver binaries_;
  std::string supervisor_;
  std::vector<Plan> plans_;  // of options_.files, in their order
  std::vector<Report> reports_;
};

}  // namespace

int RunCommand(const RunCommandOptions& options) {
  if (options.verdict != kInvalid && !VerdictByName(options.verdict)) {
    Complain(absl::StrCat("there is no verdict \"", options.verdict,
                          "\"; write passed, failed, inconclusive, "
                          "time_limit or invalid"));
    return kExitUsage;
  }
  const absl::Status subreaper = ipc::process::BecomeSubreaper();
  if (!subreaper.ok()) {
    Complain(subreaper.message());
    return kExitInfrastructure;
  }
  Interrupt interrupt([] { ipc::process::KillAllChildren(); });
  return Runner(options, interrupt).Run();
}

}  // namespace parley::control
