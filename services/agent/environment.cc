#include "services/agent/environment.h"

namespace parley::agent {

bool IsForOneProcess(absl::string_view variable) {
  return variable == "LISTEN_FDS" || variable == "LISTEN_FDNAMES" ||
         variable == "LISTEN_PID" || variable == "NOTIFY_SOCKET";
}

}  // namespace parley::agent
