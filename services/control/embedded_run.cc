#include "services/control/embedded_run.h"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/children.h"
#include "services/control/supervisor_link.h"
#include "services/supervisor/client.h"
#include "services/supervisor/proto_time.h"

namespace parley::control {
namespace {

// For a supervisor that runs nothing any more.
constexpr absl::Duration kShutdownTimeout = absl::Seconds(5);

// Waits for a child to end, without reaping it.
void WaitForEnd(pid_t pid, absl::Duration timeout) {
  const ipc::Deadline deadline = ipc::Deadline::After(timeout);
  const ipc::UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  pollfd end = {pidfd.get(), POLLIN, 0};
  while (pidfd.ok() && !deadline.HasPassed() &&
         poll(&end, 1, deadline.PollTimeout()) <= 0) {
  }
}

// The events of a run that did not come to be.
v1::Verdict NotRun(
    const absl::Status& status, const Plan& plan,
    const std::function<void(const v1::RunScenarioResponse&)>& emit) {
  v1::RunScenarioResponse started;
  *started.mutable_time() = supervisor::ToProto(absl::Now());
  started.mutable_started()->set_scenario(plan.scenario.name());
  started.mutable_started()->set_seed(plan.scenario.seed());
  emit(started);
  v1::RunScenarioResponse end;
  *end.mutable_time() = supervisor::ToProto(absl::Now());
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
  ipc::process::KillAllChildren();
  return verdict;
}

}  // namespace parley::control
