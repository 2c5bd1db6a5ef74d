// Holds what a scenario expects against what came of it.
//
// There is a check "NAME exit" for each process, whether or not an `expect`
// names it, and one for each text that is expected of it ("NAME stdout").
//
// A process that Parley stopped before its time, because another had failed,
// proves nothing: its checks are inconclusive, and so are those of text when
// some of the output was dropped.
#ifndef SERVICES_CONTROL_CHECKS_H_
#define SERVICES_CONTROL_CHECKS_H_

#include <vector>

#include "services/control/control.pb.h"
#include "services/control/outcome.h"
#include "services/control/scenario.pb.h"

namespace parley::control {

// Of a normalized scenario (see plan.h), when every process has ended.
std::vector<v1::Check> EvaluateChecks(const v1::Scenario& scenario,
                                      const Outcomes& outcomes);

// Whether a process has ended in a way that fails the scenario: by none of its
// ok_exit, and not as an `expect` says. What one `expect` names is judged when
// all has ended, so its end is never bad before.
bool EndedBadly(const v1::Scenario& scenario, const Outcome& outcome);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_CHECKS_H_
