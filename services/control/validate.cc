#include "services/control/validate.h"

#include <set>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/agent/environment.h"
#include "services/control/channel_rules.h"
#include "services/control/dependency_rules.h"
#include "services/control/expect_rules.h"
#include "services/control/field_rules.h"
#include "services/control/names.h"

namespace parley::control {
namespace {

constexpr uint32_t kMostReplicas = 1000;

void CheckEnvironment(const Field& field, const v1::Process& process,
                      Diagnostics& diagnostics) {
  for (const auto& [name, value] : process.env()) {
    if (name.empty() || absl::StrContains(name, '=')) {
      diagnostics.Add(field.At("env"),
                      absl::StrCat("\"", name,
                                   "\" is no name of a variable; write a key "
                                   "that is not empty and has no `=`"));
    } else if (agent::IsForOneProcess(name)) {
      diagnostics.Add(field.At("env"),
                      absl::StrCat(name,
                                   " is set by the supervisor; remove it, and "
                                   "grant channels by `grant`"));
    }
  }
}

void CheckReadyAndStop(const Field& field, const v1::Process& process,
                       Diagnostics& diagnostics) {
  if (process.has_ready()) {
    if (!process.ready().notify()) {
      diagnostics.Add(field.At("ready"),
                      "says not how readiness shows; write `notify: true`");
    }
    if (process.ready().has_timeout()) {
      CheckDuration(field.At("ready").At("timeout"), process.ready().timeout(),
                    /*zero_allowed=*/false, diagnostics);
    }
  }
  if (!process.has_stop()) return;
  const Field stop = field.At("stop");
  if (!process.stop().signal().empty()) {
    CheckSignal(stop.At("signal"), process.stop().signal(), diagnostics);
  }
  if (process.stop().has_grace()) {
    CheckDuration(stop.At("grace"), process.stop().grace(),
                  /*zero_allowed=*/true, diagnostics);
  }
}

void CheckProcess(const Field& field, const v1::Process& process,
                  const ParsedScenario& parsed, const BinaryResolver& binaries,
                  Diagnostics& diagnostics) {
  const absl::Status found =
      binaries.Resolve(process.binary(), parsed.directory()).status();
  if (!found.ok()) diagnostics.Add(field.At("binary"), found.message());
  if (process.replicas() > kMostReplicas) {
    diagnostics.Add(field.At("replicas"),
                    absl::StrCat(process.replicas(), " are too many; write ",
                                 kMostReplicas, " at most"));
  }
  CheckEnvironment(field, process, diagnostics);
  CheckReadyAndStop(field, process, diagnostics);
  for (int i = 0; i < process.ok_exit_size(); ++i) {
    if (process.ok_exit(i) < 0 || process.ok_exit(i) > 255) {
      diagnostics.Add(field.At("ok_exit", i),
                      absl::StrCat("no process exits with ", process.ok_exit(i),
                                   "; write 0 to 255"));
    }
  }
}

void CheckProcesses(const ParsedScenario& parsed,
                    const ValidateOptions& options, Diagnostics& diagnostics) {
  const Field root = parsed.root();
  if (parsed.scenario.process_size() == 0) {
    diagnostics.Add(root.At("process"),
                    "there is none; write at least one, such as `process { "
                    "name: \"sender\" binary: \"//services/sender\" }`");
  }
  std::set<std::string> names;
  for (int i = 0; i < parsed.scenario.process_size(); ++i) {
    const v1::Process& process = parsed.scenario.process(i);
    const Field field = root.At("process", i);
    CheckName(field.At("name"), process.name(), diagnostics);
    CheckProcess(field, process, parsed, *options.binaries, diagnostics);
    if (process.replicas() > kMostReplicas) continue;
    std::set<std::string> own = {process.name()};
    for (const std::string& instance : InstanceNames(process)) {
      own.insert(instance);
    }
    for (const std::string& name : own) {
      if (!names.insert(name).second) {
        diagnostics.Add(field.At("name"),
                        absl::StrCat("there is already a process \"", name,
                                     "\"; write another name, or `replicas` "
                                     "in the first one"));
      }
    }
  }
}

}  // namespace

void Validate(const ParsedScenario& parsed, const ValidateOptions& options,
              Diagnostics& diagnostics) {
  const Field root = parsed.root();
  CheckName(root.At("name"), ScenarioName(parsed), diagnostics);
  if (parsed.scenario.has_time_limit()) {
    CheckDuration(root.At("time_limit"), parsed.scenario.time_limit(),
                  /*zero_allowed=*/false, diagnostics);
  }
  CheckChannels(parsed, diagnostics);
  CheckProcesses(parsed, options, diagnostics);
  for (const v1::Process& process : parsed.scenario.process()) {
    // What follows would spell all of them out.
    if (process.replicas() > kMostReplicas) return;
  }
  CheckGrants(parsed, diagnostics);
  CheckDependencies(parsed, options.existing_processes, diagnostics);
  CheckExpects(parsed, diagnostics);
}

std::string ScenarioName(const ParsedScenario& parsed) {
  if (!parsed.scenario.name().empty()) return parsed.scenario.name();
  const std::string& file = parsed.file_name;
  const size_t slash = file.rfind('/');
  const std::string base =
      slash == std::string::npos ? file : file.substr(slash + 1);
  return base.substr(0, base.find('.'));
}

}  // namespace parley::control
