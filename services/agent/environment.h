// The variables by which a process is told its world: LISTEN_FDS,
// LISTEN_FDNAMES, LISTEN_PID (see listen_fds.h), NOTIFY_SOCKET (see notify.h).
// Its parent sets them anew for each child, so they mean nothing, or harm, to
// any other process.
#ifndef SERVICES_AGENT_ENVIRONMENT_H_
#define SERVICES_AGENT_ENVIRONMENT_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace parley::agent {

// Whether `variable`, a name, is one of these.
bool IsForOneProcess(absl::string_view variable);

// The caller's environment without these, as "NAME=value": what a child of its
// own may inherit.
std::vector<std::string> InheritableEnv();

}  // namespace parley::agent

#endif  // SERVICES_AGENT_ENVIRONMENT_H_
