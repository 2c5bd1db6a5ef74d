// Runs a scenario over a Control server.
#ifndef SERVICES_CONTROL_REMOTE_RUN_H_
#define SERVICES_CONTROL_REMOTE_RUN_H_

#include <functional>
#include <string>

#include "services/control/engine.h"

namespace parley::control {

// Has the server at unix socket `socket` run the scenario, whose binaries are
// absolute paths already, and hands on its events. If the server cannot be
// reached, or goes away, the verdict is INFRASTRUCTURE.
v1::Verdict RunRemotely(
    const std::string& socket, const Plan& plan, const RunOptions& options,
    const std::function<void(const v1::RunScenarioResponse&)>& emit);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_REMOTE_RUN_H_
