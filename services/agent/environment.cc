#include "services/agent/environment.h"

#include "ipc/process/spawn.h"

namespace parley::agent {

bool IsForOneProcess(absl::string_view variable) {
  return variable == "LISTEN_FDS" || variable == "LISTEN_FDNAMES" ||
         variable == "LISTEN_PID" || variable == "NOTIFY_SOCKET";
}

std::vector<std::string> InheritableEnv() {
  std::vector<std::string> result = ipc::process::InheritEnv();
  std::erase_if(result, [](absl::string_view variable) {
    return IsForOneProcess(variable.substr(0, variable.find('=')));
  });
  return result;
}

}  // namespace parley::agent
