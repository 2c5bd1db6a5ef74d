// Plan: a scenario that is known to make sense, and what the supervisor is told
// to run it.
//
// Example:
//
//   const BinaryResolver binaries(RunfilesRoots(argv[0], "parley"));
//   absl::StatusOr<ParsedScenario> parsed = ParseScenarioFile(path);
//   absl::StatusOr<Plan> plan = MakePlan(*parsed, {.binaries = &binaries});
//   *up.mutable_session() = plan->session;
//
// Thread safety: MakePlan may be called from many threads.
#ifndef SERVICES_CONTROL_PLAN_H_
#define SERVICES_CONTROL_PLAN_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/control/binaries.h"
#include "services/control/control.pb.h"
#include "services/control/scenario_parser.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::control {

struct PlanOptions {
  const BinaryResolver* binaries = nullptr;  // required
  // Of a scenario that sets none.
  uint64_t seed = 1;
  // What processes see besides PARLEY_SEED, PARLEY_PROCESS and their own `env`,
  // which wins; usually BaseEnvironment().
  std::map<std::string, std::string> environment = {};
  // Names of processes that run already, which `depends_on` may name too.
  std::vector<std::string> existing_processes = {};
};

struct Plan {
  // As written, with defaults filled in and replicas spelled out, so that each
  // process is one and each expectation is about one.
  v1::Scenario scenario;
  supervisor::v1::SessionSpec session;
  std::vector<std::vector<std::string>> waves;  // process names, by start order
  uint64_t shared_memory_bytes = 0;
  uint32_t file_descriptors = 0;  // that the supervisor holds

  v1::PlanResponse ToProto() const;
};

// InvalidArgument with everything that is wrong, a line each.
absl::StatusOr<Plan> MakePlan(const ParsedScenario& parsed,
                              const PlanOptions& options);

// PATH, and of our own environment what tests and sanitizers need: TMPDIR,
// TEST_TMPDIR, RUNFILES_DIR and *SAN_OPTIONS.
std::map<std::string, std::string> BaseEnvironment();

}  // namespace parley::control

#endif  // SERVICES_CONTROL_PLAN_H_
