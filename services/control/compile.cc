#include "services/control/compile.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ipc/process/exit_status.h"
#include "services/control/names.h"
#include "services/control/validate.h"
#include "services/supervisor/proto_time.h"

namespace parley::control {
namespace {

namespace sup = supervisor::v1;

constexpr absl::Duration kDefaultTimeLimit = absl::Seconds(60);
constexpr absl::Duration kDefaultReadyTimeout = absl::Seconds(10);
constexpr absl::Duration kDefaultGrace = absl::Seconds(5);

void FillIn(const ParsedScenario& parsed, v1::Process& process) {
  for (v1::Grant& grant : *process.mutable_grant()) {
    if (grant.as().empty()) grant.set_as(grant.channel());
  }
  if (process.has_ready() && !process.ready().has_timeout()) {
    *process.mutable_ready()->mutable_timeout() =
        supervisor::ToProto(kDefaultReadyTimeout);
  }
  if (process.stop().signal().empty()) {
    process.mutable_stop()->set_signal("SIGTERM");
  }
  if (!process.stop().has_grace()) {
    *process.mutable_stop()->mutable_grace() =
        supervisor::ToProto(kDefaultGrace);
  }
  if (process.ok_exit().empty()) process.add_ok_exit(0);
  const std::string& directory = process.working_directory();
  if (!directory.empty() && !absl::StartsWith(directory, "/")) {
    // Absolute, since it may be a server that runs it.
    std::error_code error;
    process.set_working_directory(
        std::filesystem::absolute(
            absl::StrCat(parsed.directory(), "/", directory), error)
            .string());
  }
}

sup::Role RoleOf(v1::Grant::Role role) {
  switch (role) {
    case v1::Grant::READ:
      return sup::READ;
    case v1::Grant::WRITE:
      return sup::WRITE;
    case v1::Grant::READ_WRITE:
      return sup::READ_WRITE;
    default:
      return sup::ROLE_UNSPECIFIED;
  }
}

sup::DependencyCondition ConditionOf(v1::DependsOn::State state) {
  switch (state) {
    case v1::DependsOn::STARTED:
      return sup::IS_STARTED;
    case v1::DependsOn::READY:
      return sup::IS_READY;
    case v1::DependsOn::EXITED_OK:
      return sup::HAS_EXITED_OK;
    default:
      return sup::DEPENDENCY_CONDITION_UNSPECIFIED;
  }
}

sup::ChannelSpec CompileChannel(const v1::Channel& channel) {
  sup::ChannelSpec spec;
  spec.set_name(channel.name());
  switch (channel.kind_case()) {
    case v1::Channel::kPipe:
      spec.mutable_pipe()->set_duplex(channel.pipe().duplex());
      break;
    case v1::Channel::kShm:
      spec.mutable_shm()->set_bytes(channel.shm().bytes());
      break;
    case v1::Channel::kMqueue:
      spec.mutable_mqueue()->set_slots(channel.mqueue().slots());
      spec.mutable_mqueue()->set_message_bytes(
          channel.mqueue().message_bytes());
      break;
    case v1::Channel::KIND_NOT_SET:
      break;
  }
  return spec;
}

sup::ProcessSpec CompileProcess(
    const v1::Process& process, uint64_t seed,
    const std::map<std::string, std::string>& environment) {
  sup::ProcessSpec spec;
  spec.set_name(process.name());
  spec.set_path(process.binary());
  *spec.mutable_args() = process.args();
  auto& env = *spec.mutable_env();
  env.insert(environment.begin(), environment.end());
  env["PARLEY_SEED"] = absl::StrCat(seed);
  env["PARLEY_PROCESS"] = process.name();
  for (const auto& [name, value] : process.env()) env[name] = value;
  spec.set_working_directory(process.working_directory());
  for (const v1::Grant& grant : process.grant()) {
    sup::Grant& compiled = *spec.add_grants();
    compiled.set_channel(grant.channel());
    compiled.set_role(RoleOf(grant.role()));
    compiled.set_as(grant.as());
  }
  for (const v1::DependsOn& dependency : process.depends_on()) {
    sup::Dependency& compiled = *spec.add_dependencies();
    compiled.set_process(dependency.process());
    compiled.set_condition(ConditionOf(dependency.state()));
  }
  if (process.has_ready()) {
    *spec.mutable_ready_timeout() = process.ready().timeout();
  }
  spec.set_stop_signal(ipc::process::SignalByName(process.stop().signal()));
  *spec.mutable_stop_grace() = process.stop().grace();
  *spec.mutable_ok_exit() = process.ok_exit();
  if (process.has_limits()) {
    sup::Limits& limits = *spec.mutable_limits();
    limits.set_memory_bytes(process.limits().memory_bytes());
    limits.set_cpu_seconds(process.limits().cpu_seconds());
    limits.set_files(process.limits().files());
    limits.set_processes(process.limits().processes());
  }
  return spec;
}

}  // namespace

v1::Scenario Normalize(const ParsedScenario& parsed, uint64_t default_seed) {
  const v1::Scenario& written = parsed.scenario;
  const std::map<std::string, NamedProcess> names = ProcessNames(written);
  const auto instances = [&](const std::string& name) {
    const auto found = names.find(name);
    return found == names.end() ? std::vector<std::string>{name}
                                : found->second.instances;
  };
  v1::Scenario result = written;
  result.set_name(ScenarioName(parsed));
  if (result.seed() == 0) result.set_seed(default_seed);
  if (!result.has_time_limit()) {
    *result.mutable_time_limit() = supervisor::ToProto(kDefaultTimeLimit);
  }
  result.clear_process();
  for (const v1::Process& process : written.process()) {
    v1::Process one = process;
    one.clear_replicas();
    FillIn(parsed, one);
    one.clear_depends_on();
    for (const v1::DependsOn& dependency : process.depends_on()) {
      for (const std::string& on : instances(dependency.process())) {
        v1::DependsOn& added = *one.add_depends_on();
        added = dependency;
        added.set_process(on);
      }
    }
    for (const std::string& instance : InstanceNames(process)) {
      one.set_name(instance);
      *result.add_process() = one;
    }
  }
  result.clear_expect();
  for (const v1::Expect& expect : written.expect()) {
    for (const std::string& instance : instances(expect.process().name())) {
      v1::Expect& added = *result.add_expect();
      added = expect;
      added.mutable_process()->set_name(instance);
    }
  }
  return result;
}

sup::SessionSpec Compile(
    const v1::Scenario& scenario,
    const std::map<std::string, std::string>& environment) {
  sup::SessionSpec session;
  session.set_name(scenario.name());
  for (const v1::Channel& channel : scenario.channel()) {
    *session.add_channels() = CompileChannel(channel);
  }
  for (const v1::Process& process : scenario.process()) {
    *session.add_processes() =
        CompileProcess(process, scenario.seed(), environment);
  }
  return session;
}

}  // namespace parley::control
