#include "services/control/dependency_rules.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "services/control/names.h"
#include "services/control/suggest.h"

namespace parley::control {
namespace {

void CheckState(const Field& field, v1::DependsOn::State state,
                const v1::Process& on, Diagnostics& diagnostics) {
  if (state == v1::DependsOn::STATE_UNSPECIFIED) {
    diagnostics.Add(field.At("state"),
                    "is not set; write STARTED, READY or EXITED_OK");
  } else if (state == v1::DependsOn::READY && !on.has_ready()) {
    diagnostics.Add(
        field.At("state"),
        absl::StrCat("process \"", on.name(),
                     "\" never says that it is ready; write `ready { notify: "
                     "true }` in it, or STARTED here instead"));
  }
}

// Reported where the first process of the cycle names the second.
void AddCycle(const ParsedScenario& parsed, const std::vector<int>& cycle,
              Diagnostics& diagnostics) {
  const v1::Scenario& scenario = parsed.scenario;
  std::string path;
  for (const int index : cycle) {
    absl::StrAppend(&path, path.empty() ? "" : " -> ",
                    scenario.process(index).name());
  }
  const std::map<std::string, NamedProcess> names = ProcessNames(scenario);
  Field field = parsed.root().At("process", cycle[0]);
  const v1::Process& first = scenario.process(cycle[0]);
  for (int j = 0; j < first.depends_on_size(); ++j) {
    const auto found = names.find(first.depends_on(j).process());
    if (found != names.end() && found->second.index == cycle[1]) {
      field = field.At("depends_on", j).At("process");
      break;
    }
  }
  diagnostics.Add(field, absl::StrCat("none of these can ever start: ", path,
                                      "; remove one of these dependencies"));
}

}  // namespace

void CheckDependencies(const ParsedScenario& parsed,
                       const std::vector<std::string>& existing,
                       Diagnostics& diagnostics) {
  const v1::Scenario& scenario = parsed.scenario;
  const std::map<std::string, NamedProcess> names = ProcessNames(scenario);
  for (int i = 0; i < scenario.process_size(); ++i) {
    for (int j = 0; j < scenario.process(i).depends_on_size(); ++j) {
      const v1::DependsOn& dependency = scenario.process(i).depends_on(j);
      const Field field = parsed.root().At("process", i).At("depends_on", j);
      const auto found = names.find(dependency.process());
      if (found != names.end()) {
        if (found->second.index == i) {
          diagnostics.Add(field.At("process"),
                          absl::StrCat("process \"", dependency.process(),
                                       "\" depends on itself; remove this"));
        }
        CheckState(field, dependency.state(),
                   scenario.process(found->second.index), diagnostics);
      } else if (std::find(existing.begin(), existing.end(),
                           dependency.process()) == existing.end()) {
        std::vector<std::string> known = existing;
        for (int other = 0; other < scenario.process_size(); ++other) {
          if (other != i) known.push_back(scenario.process(other).name());
        }
        diagnostics.Add(
            field.At("process"),
            absl::StrCat("there is no process \"", dependency.process(), "\"",
                         Suggest(dependency.process(), std::move(known))));
      }
    }
  }
  const std::vector<int> cycle = supervisor::FindCycle(EdgesOf(scenario));
  if (!cycle.empty()) AddCycle(parsed, cycle, diagnostics);
}

supervisor::DependencyEdges EdgesOf(const v1::Scenario& scenario) {
  const std::map<std::string, NamedProcess> names = ProcessNames(scenario);
  supervisor::DependencyEdges edges(scenario.process_size());
  for (int i = 0; i < scenario.process_size(); ++i) {
    for (const v1::DependsOn& dependency : scenario.process(i).depends_on()) {
      const auto found = names.find(dependency.process());
      // What depends on itself is reported as that, not as a cycle.
      if (found != names.end() && found->second.index != i) {
        edges[i].push_back(found->second.index);
      }
    }
  }
  return edges;
}

}  // namespace parley::control
