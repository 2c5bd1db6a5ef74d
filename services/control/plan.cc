#include "services/control/plan.h"

#include <stdlib.h>

#include <bit>
#include <utility>

#include "ipc/mqueue/queue.h"
#include "services/control/compile.h"
#include "services/control/dependency_rules.h"
#include "services/control/validate.h"
#include "services/supervisor/dependency_graph.h"

namespace parley::control {
namespace {

// As in ipc/mqueue/queue.h, without the queue's own header of a few pages.
uint64_t MqueueBytes(const v1::Channel::Mqueue& mqueue) {
  const ipc::mqueue::Options defaults;
  const uint64_t slots = mqueue.slots() > 0 ? mqueue.slots() : defaults.slots;
  const uint64_t message = mqueue.message_bytes() > 0 ? mqueue.message_bytes()
                                                      : defaults.message_bytes;
  return std::bit_ceil(slots) * ((message + 16 + 63) / 64 * 64);
}

uint64_t SharedMemoryBytes(const v1::Channel& channel) {
  if (channel.has_shm()) return channel.shm().bytes();
  return channel.has_mqueue() ? MqueueBytes(channel.mqueue()) : 0;
}

}  // namespace

v1::PlanResponse Plan::ToProto() const {
  v1::PlanResponse response;
  *response.mutable_scenario() = scenario;
  for (const std::vector<std::string>& wave : waves) {
    v1::PlanResponse::Wave& added = *response.add_wave();
    for (const std::string& process : wave) added.add_process(process);
  }
  response.set_shared_memory_bytes(shared_memory_bytes);
  response.set_file_descriptors(file_descriptors);
  return response;
}

absl::StatusOr<Plan> MakePlan(const ParsedScenario& parsed,
                              const PlanOptions& options) {
  Diagnostics diagnostics;
  Validate(parsed,
           {.binaries = options.binaries,
            .existing_processes = options.existing_processes},
           diagnostics);
  if (!diagnostics.empty()) return diagnostics.ToStatus();

  Plan plan;
  plan.scenario = Normalize(parsed, options.seed);
  for (v1::Process& process : *plan.scenario.mutable_process()) {
    absl::StatusOr<std::string> path =
        options.binaries->Resolve(process.binary(), parsed.directory());
    // It was there a moment ago.
    if (!path.ok()) return path.status();
    process.set_binary(*std::move(path));
  }
  plan.session = Compile(plan.scenario, options.environment);
  for (const std::vector<int>& wave :
       supervisor::Waves(EdgesOf(plan.scenario))) {
    std::vector<std::string>& names = plan.waves.emplace_back();
    for (const int index : wave) {
      names.push_back(plan.scenario.process(index).name());
    }
  }
  for (const v1::Channel& channel : plan.scenario.channel()) {
    plan.shared_memory_bytes += SharedMemoryBytes(channel);
    plan.file_descriptors += channel.has_pipe() ? 2 : 1;
  }
  // A pidfd and the reading ends of stdout and stderr, and the notify socket.
  for (const v1::Process& process : plan.scenario.process()) {
    plan.file_descriptors += process.has_ready() ? 4 : 3;
  }
  return plan;
}

std::map<std::string, std::string> BaseEnvironment() {
  std::map<std::string, std::string> environment;
  environment["PATH"] = "/usr/local/bin:/usr/bin:/bin";
  for (const char* name :
       {"PATH", "TMPDIR", "TEST_TMPDIR", "RUNFILES_DIR", "ASAN_OPTIONS",
        "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"}) {
    const char* value = getenv(name);
    if (value != nullptr) environment[name] = value;
  }
  return environment;
}

}  // namespace parley::control
