// What is wrong with `expect`: unknown processes, nothing expected, regular
// expressions that do not compile.
#ifndef SERVICES_CONTROL_EXPECT_RULES_H_
#define SERVICES_CONTROL_EXPECT_RULES_H_

#include "services/control/scenario_parser.h"

namespace parley::control {

void CheckExpects(const ParsedScenario& parsed, Diagnostics& diagnostics);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_EXPECT_RULES_H_
