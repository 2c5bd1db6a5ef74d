#include "services/control/embedded_run.h"

#include <sys/types.h>

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/control/durations.h"
#include "services/control/reaper.h"
#include "services/control/supervisor_link.h"
#include "services/supervisor/client.h"

namespace parley::control {
namespace {

// For a supervisor that runs nothing any more.
constexpr absl::Duration kShutdownTimeout = absl::Seconds(5);

// The events of a run that did not come to be.
v1::Verdict NotRun(
    const absl::Status& status, const Plan& plan,
    const std::function<void(const v1::RunScenarioResponse&)>& emit) {
  v1::RunScenarioResponse started;
  *started.mutable_time() = ToProto(absl::Now());
  started.mutable_started()->set_scenario(plan.scenario.name());
  started.mutable_started()->set_seed(plan.scenario.seed());
  emit(started);
  v1::RunScenarioResponse end;
  *end.mutable_time() = ToProto(absl::Now());
  end.mutable_verdict()->set_result(v1::Verdict::INFRASTRUCTURE);
  end.mutable_verdict()->set_detail(std::string(status.message()));
  emit(end);
  return end.verdict();
}

}  // namespace

v1::Verdict RunEmbedded(
    const std::string& binary, const Plan& plan, const RunOptions& options,
    const std::function<void(const v1::RunScenarioResponse&)>& emit) {
  v1::Verdict verdict;
  {
    absl::StatusOr<supervisor::Client> client =
        supervisor::Client::Launch({.binary = binary});
    if (!client.ok()) return NotRun(client.status(), plan, emit);
    const pid_t pid = client->supervisor_pid();
    ClientLink link(&*client);
    verdict = RunScenario(link, plan, options, emit);
    supervisor::v1::ClientMessage shutdown;
    shutdown.mutable_shutdown();
    // If it does not answer, it is killed below.
    if (client->Call(std::move(shutdown), kShutdownTimeout).ok()) {
      WaitForEnd(pid, kShutdownTimeout);
    }
  }
  KillDescendants();
  return verdict;
}

}  // namespace parley::control
