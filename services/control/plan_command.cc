#include "services/control/plan_command.h"

#include <stdio.h>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/util/json_util.h"
#include "services/control/binaries.h"
#include "services/control/exit_codes.h"
#include "services/control/plan.h"
#include "services/control/scenario_parser.h"

namespace parley::control {
namespace {

absl::StatusOr<Plan> MakePlanOf(const PlanCommandOptions& options) {
  const absl::StatusOr<ParsedScenario> parsed = ParseScenarioFile(options.file);
  if (!parsed.ok()) return parsed.status();
  const BinaryResolver binaries(
      RunfilesRoots(options.argv0, options.workspace));
  return MakePlan(*parsed, {.binaries = &binaries});
}

std::string Describe(const Plan& plan) {
  std::string text = absl::StrCat("scenario ", plan.scenario.name(), "\n");
  for (size_t i = 0; i < plan.waves.size(); ++i) {
    absl::StrAppend(&text, "  wave ", i + 1, ": ",
                    absl::StrJoin(plan.waves[i], ", "), "\n");
  }
  for (const v1::Channel& channel : plan.scenario.channel()) {
    std::vector<std::string> holders;
    for (const v1::Process& process : plan.scenario.process()) {
      for (const v1::Grant& grant : process.grant()) {
        if (grant.channel() != channel.name()) continue;
        holders.push_back(absl::StrCat(process.name(), " ",
                                       v1::Grant::Role_Name(grant.role())));
      }
    }
    absl::StrAppend(&text, "  channel ", channel.name(), ": ",
                    absl::StrJoin(holders, ", "), "\n");
  }
  absl::StrAppend(&text, "  shared memory: ", plan.shared_memory_bytes,
                  " bytes; file descriptors: ", plan.file_descriptors, "\n");
  return text;
}

}  // namespace

int PlanCommand(const PlanCommandOptions& options) {
  const absl::StatusOr<Plan> plan = MakePlanOf(options);
  if (!plan.ok()) {
    fprintf(stderr, "%s\n", std::string(plan.status().message()).c_str());
    return kExitUsage;
  }
  std::string text;
  if (options.json) {
    (void)google::protobuf::util::MessageToJsonString(plan->ToProto(), &text);
    text += "\n";
  } else {
    text = Describe(*plan);
  }
  fwrite(text.data(), 1, text.size(), stdout);
  return kExitOk;
}

}  // namespace parley::control
