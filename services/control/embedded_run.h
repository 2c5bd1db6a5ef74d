// Runs a scenario on a supervisor of its own.
#ifndef SERVICES_CONTROL_EMBEDDED_RUN_H_
#define SERVICES_CONTROL_EMBEDDED_RUN_H_

#include <functional>
#include <string>

#include "services/control/engine.h"

namespace parley::control {

// Launches the supervisor `binary`, runs the scenario as RunScenario does, and
// ends the supervisor. Nothing that was started is left afterwards, whatever
// happened to the supervisor. Requires ipc::process::BecomeSubreaper, and that
// this process has no other child.
v1::Verdict RunEmbedded(
    const std::string& binary, const Plan& plan, const RunOptions& options,
    const std::function<void(const v1::RunScenarioResponse&)>& emit);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_EMBEDDED_RUN_H_
