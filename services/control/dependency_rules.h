// What is wrong with `depends_on`: unknown processes, states that never come,
// cycles.
#ifndef SERVICES_CONTROL_DEPENDENCY_RULES_H_
#define SERVICES_CONTROL_DEPENDENCY_RULES_H_

#include <string>
#include <vector>

#include "services/control/scenario_parser.h"
#include "services/supervisor/dependency_graph.h"

namespace parley::control {

// `existing` are processes that run already, which may be named as well.
void CheckDependencies(const ParsedScenario& parsed,
                       const std::vector<std::string>& existing,
                       Diagnostics& diagnostics);

// Between the scenario's processes, by index; those unknown are left out.
supervisor::DependencyEdges EdgesOf(const v1::Scenario& scenario);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_DEPENDENCY_RULES_H_
