// What can be known to be wrong with a scenario before anything is started.
//
// Everything wrong is found at once, each by file, line and field, with what to
// write instead. Rules about one kind of field are in *_rules.h.
#ifndef SERVICES_CONTROL_VALIDATE_H_
#define SERVICES_CONTROL_VALIDATE_H_

#include <string>
#include <vector>

#include "services/control/binaries.h"
#include "services/control/scenario_parser.h"

namespace parley::control {

struct ValidateOptions {
  const BinaryResolver* binaries = nullptr;  // required
  // Names of processes that run already, which `depends_on` may name too.
  std::vector<std::string> existing_processes = {};
};

// Adds what is wrong with `parsed` to `diagnostics`.
void Validate(const ParsedScenario& parsed, const ValidateOptions& options,
              Diagnostics& diagnostics);

// The scenario's name, by default that of its file.
std::string ScenarioName(const ParsedScenario& parsed);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_VALIDATE_H_
