// Starts a program that holds exactly the file descriptors it was given.
//
// Example: a child that reads `end` as its descriptor 3.
//
//   SpawnOptions options;
//   options.argv = {"/usr/bin/sort", "/dev/fd/3"};
//   options.fds = {{3, end.get()}};
//   absl::StatusOr<Process> child = Spawn(options);
//
// The child shares the parent's memory until it has executed the program
// (CLONE_VM | CLONE_VFORK, as in posix_spawn), so that a start costs the same
// whatever the parent's size, and a failure before or in execve comes back as
// a Status that names the step.
//
// Thread safety: Spawn may be called from many threads.
#ifndef IPC_PROCESS_SPAWN_H_
#define IPC_PROCESS_SPAWN_H_

#include <sys/resource.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "ipc/process/process.h"

namespace ipc::process {

struct SpawnOptions {
  // The program, by path (PATH is not searched), and its arguments. argv[0] is
  // the path unless `path` is set.
  std::vector<std::string> argv;
  std::string path;

  // The whole environment, as "NAME=value"; nothing is inherited. `InheritEnv`
  // gives the caller's own.
  std::vector<std::string> env;
  // If not empty, also this variable, with the child's process id as its value
  // ("LISTEN_PID" of sd_listen_fds(3)).
  std::string pid_env;

  // Child's descriptor -> ours. The child holds these, and 0, 1, 2, and no
  // other, whatever is open here. 0, 1, 2 are inherited unless named; -1 as
  // ours gives /dev/null. Ours stay open here.
  std::map<int, int> fds;

  std::string working_directory;               // empty: ours
  std::vector<std::pair<int, rlimit>> limits;  // {RLIMIT_..., …}, in this order

  // In a session (setsid) and so a process group of its own, which a later
  // kill(-pid, …) reaches as a whole.
  bool new_session = false;

  // Sent to the child when the *thread* that called Spawn ends, so call it
  // from one that lives as long as the process; 0: none. A parent that is dead
  // before the child can ask for the signal counts as well: the child then
  // never runs the program. See PR_SET_PDEATHSIG in prctl(2); the kernel drops
  // the request when a set-user-ID program is executed.
  int death_signal = 0;
};

// Starts it. The child has default signal dispositions and an empty signal
// mask. Errors name the step and the program: NotFound, PermissionDenied,
// InvalidArgument, ResourceExhausted.
absl::StatusOr<Process> Spawn(const SpawnOptions& options);

// The caller's environment, for SpawnOptions::env.
std::vector<std::string> InheritEnv();

}  // namespace ipc::process

#endif  // IPC_PROCESS_SPAWN_H_
