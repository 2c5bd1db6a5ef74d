// The channels a process was granted, by the convention of sd_listen_fds(3):
// LISTEN_FDS descriptors from 3 on, named by LISTEN_FDNAMES (separated by
// colons), meant for the process LISTEN_PID.
#ifndef SERVICES_AGENT_LISTEN_FDS_H_
#define SERVICES_AGENT_LISTEN_FDS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ipc/base/unique_fd.h"

namespace parley::agent {

struct NamedFd {
  std::string name;
  ipc::UniqueFd fd;
};

// Takes over the descriptors, makes them close-on-exec, and removes the three
// variables from the environment, so that no child of this process takes them
// for its own. None if the variables are absent or meant for another process.
// InvalidArgument if they contradict each other or what is open.
//
// Call it once, before there are threads: it changes the environment.
absl::StatusOr<std::vector<NamedFd>> TakeListenFds();

}  // namespace parley::agent

#endif  // SERVICES_AGENT_LISTEN_FDS_H_
