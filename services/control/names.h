// Which names a scenario's processes go by, replicas included.
#ifndef SERVICES_CONTROL_NAMES_H_
#define SERVICES_CONTROL_NAMES_H_

#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/control/scenario.pb.h"

namespace parley::control {

// "worker-0", "worker-1" for a `worker` with two replicas, else its name.
std::vector<std::string> InstanceNames(const v1::Process& process);

struct NamedProcess {
  int index;                           // in Scenario.process
  std::vector<std::string> instances;  // that the name stands for
};

// What `depends_on` and `expect` may name: each process, which stands for all
// its replicas, and each replica.
std::map<std::string, NamedProcess> ProcessNames(const v1::Scenario& scenario);

// [a-z0-9_-]+, at most 64 characters.
bool IsValidName(absl::string_view name);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_NAMES_H_
