// Turns a valid scenario into one with nothing left to default, and that into
// what the supervisor is told.
#ifndef SERVICES_CONTROL_COMPILE_H_
#define SERVICES_CONTROL_COMPILE_H_

#include <map>
#include <string>

#include "services/control/scenario_parser.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::control {

// With names, the seed, time limits and graces filled in, and one process and
// one expectation for each replica.
v1::Scenario Normalize(const ParsedScenario& parsed, uint64_t default_seed);

// Of a normalized scenario whose binaries are absolute paths. `environment` is
// what every process sees.
supervisor::v1::SessionSpec Compile(
    const v1::Scenario& scenario,
    const std::map<std::string, std::string>& environment);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_COMPILE_H_
