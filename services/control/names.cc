#include "services/control/names.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace parley::control {

std::vector<std::string> InstanceNames(const v1::Process& process) {
  if (process.replicas() == 0) return {process.name()};
  std::vector<std::string> names;
  for (uint32_t i = 0; i < process.replicas(); ++i) {
    names.push_back(absl::StrCat(process.name(), "-", i));
  }
  return names;
}

std::map<std::string, NamedProcess> ProcessNames(const v1::Scenario& scenario) {
  std::map<std::string, NamedProcess> names;
  for (int i = 0; i < scenario.process_size(); ++i) {
    const v1::Process& process = scenario.process(i);
    const std::vector<std::string> instances = InstanceNames(process);
    names.insert({process.name(), {i, instances}});
    for (const std::string& instance : instances) {
      names.insert({instance, {i, {instance}}});
    }
  }
  return names;
}

bool IsValidName(absl::string_view name) {
  return !name.empty() && name.size() <= 64 &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) ||
                  c == '_' || c == '-';
         });
}

}  // namespace parley::control
