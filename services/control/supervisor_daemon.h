// The supervisor behind a server: it outlives the server, so that a server that
// is killed finds everything running when it comes back.
#ifndef SERVICES_CONTROL_SUPERVISOR_DAEMON_H_
#define SERVICES_CONTROL_SUPERVISOR_DAEMON_H_

#include <string>

#include "absl/status/status.h"
#include "services/control/runtime_directory.h"

namespace parley::control {

// Sees to it that a supervisor listens at directory.supervisor_socket(): one
// that lives there already, by its lock, or else a new process of `binary`.
// That is handed the listening socket and the lock, by the names "listen" and
// "lock" of LISTEN_FDNAMES, in a session of its own. Call it from the main
// thread.
absl::Status EnsureSupervisor(const std::string& binary,
                              const RuntimeDirectory& directory);

// Has it stop everything it runs, and end.
absl::Status ShutDownSupervisor(const RuntimeDirectory& directory);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_SUPERVISOR_DAEMON_H_
