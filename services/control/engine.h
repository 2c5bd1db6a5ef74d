// Runs a scenario on a supervisor, and judges what came of it.
//
// A scenario ends when every process has ended. It is cut short, and what still
// runs is stopped, dependents first, when a process has ended badly (see
// EndedBadly in checks.h), when its time limit passes, and when the caller
// cancels it. A process that serves until it is told to stop must therefore be
// told so by another, for example by the end of its pipe.
//
// Example:
//
//   ClientLink link(&client);
//   v1::Verdict verdict = RunScenario(
//       link, *plan, {.session = "pipe-1"},
//       [](const v1::RunScenarioResponse& event) { … });
//
// Thread safety: one thread at a time for each link.
//
// Lifetime: the session is bound to the link's connection, so that it ends with
// whoever runs it, however that ends.
#ifndef SERVICES_CONTROL_ENGINE_H_
#define SERVICES_CONTROL_ENGINE_H_

#include <functional>
#include <string>

#include "absl/time/time.h"
#include "services/control/control.pb.h"
#include "services/control/plan.h"
#include "services/control/supervisor_link.h"

namespace parley::control {

struct RunOptions {
  // A name that no other session of the supervisor has; empty: the scenario's.
  std::string session = {};
  // If less than the scenario's own.
  absl::Duration time_limit = absl::InfiniteDuration();
  // Asked every 100 ms; the run is then cut short, and is inconclusive.
  std::function<bool()> cancelled = {};
};

// Everything that happens, in order: `started`, then `process` and `output`,
// then each `check`, then the `verdict`, which is also returned.
v1::Verdict RunScenario(
    SupervisorLink& link, const Plan& plan, const RunOptions& options,
    const std::function<void(const v1::RunScenarioResponse&)>& emit);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_ENGINE_H_
