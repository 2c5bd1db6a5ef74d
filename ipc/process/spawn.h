// Starts a program that holds exactly the file descriptors it was given.
//
// Example: a child that reads `end` as its descriptor 3.
//
//   SpawnOptions options;
//   options.argv = {"/usr/bin/sort", "/dev/fd/3"};
//   options.fds = {{3, end.get()}};
//   absl::StatusOr<Process> child = Spawn(options);
//
// Example: what a program prints, as another user, and what it complains of
// into a file.
//
//   UniqueFd output;
//   options.standard_output = Redirect::Pipe(&output);
//   options.standard_error = Redirect::File("/var/log/job", O_WRONLY |
//   O_APPEND); options.identity = Identity{.uid = 65534, .gid = 65534, .groups
//   = {}};
//
// The child shares the parent's memory until it has executed the program
// (CLONE_VM | CLONE_VFORK, as in posix_spawn), so that a start costs the same
// whatever the parent's size, and a failure before or in execve comes back as
// a Status that names the step.
//
// Thread safety: Spawn may be called from many threads.
#ifndef IPC_PROCESS_SPAWN_H_
#define IPC_PROCESS_SPAWN_H_

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/process.h"

namespace ipc::process {

// Where a standard stream of the child goes.
class Redirect {
 public:
  // To where ours goes, or where SpawnOptions::fds says.
  static Redirect Inherit() { return Redirect(); }
  static Redirect Null() { return Redirect(Kind::kNull, -1); }
  // `fd` stays open here. Spawn is InvalidArgument if it is negative.
  static Redirect Fd(int fd) { return Redirect(Kind::kFd, fd); }
  // A file, opened by the caller (its rights, its working directory) for the
  // time of Spawn. `flags` as of open(2): O_RDONLY, O_WRONLY | O_APPEND, …;
  // `mode` for O_CREAT.
  static Redirect File(std::string path, int flags, mode_t mode = 0600) {
    Redirect redirect(Kind::kFile, -1);
    redirect.path_ = std::move(path);
    redirect.flags_ = flags;
    redirect.mode_ = mode;
    return redirect;
  }
  // A new pipe. Spawn puts our end of it into `ours`, which must live until
  // then, if it succeeds: the writing one for standard input, else the reading
  // one.
  static Redirect Pipe(UniqueFd* ours) {
    Redirect redirect(Kind::kPipe, -1);
    redirect.ours_ = ours;
    return redirect;
  }

 private:
  friend class RedirectedFds;
  enum class Kind { kInherit, kNull, kFd, kFile, kPipe };

  Redirect() = default;
  Redirect(Kind kind, int fd) : kind_(kind), fd_(fd) {}

  Kind kind_ = Kind::kInherit;
  int fd_ = -1;
  std::string path_;
  int flags_ = O_RDONLY;
  mode_t mode_ = 0;
  UniqueFd* ours_ = nullptr;
};

// Whom a process acts for. All of it is always said, so that nobody forgets
// that root's supplementary groups would stay.
struct Identity {
  uid_t uid;
  gid_t gid;
  std::vector<gid_t> groups;  // the supplementary ones, instead of ours
};

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
  // The child's 0, 1, 2, more easily; unless inherited, not in `fds` as well.
  Redirect standard_input = Redirect::Inherit();
  Redirect standard_output = Redirect::Inherit();
  Redirect standard_error = Redirect::Inherit();

  // Empty: ours. Entered as `identity`; a relative `path` starts there.
  std::string working_directory;
  std::vector<std::pair<int, rlimit>> limits;  // {RLIMIT_..., …}, in this order
  std::optional<mode_t> umask;                 // unset: ours

  // Unset: ours. The real, effective and saved ids, all alike: there is no way
  // back. Takes CAP_SETGID and CAP_SETUID (else PermissionDenied) even if
  // nothing changes. Such calls of Spawn wait for each other, and for their
  // moment this process writes no core and cannot be traced, as the kernel
  // protects what it shares with the child (PR_SET_DUMPABLE in prctl(2)).
  std::optional<Identity> identity;

  // In a session (setsid) and so a process group of its own, which a later
  // kill(-pid, …) reaches as a whole.
  bool new_session = false;
  // In this process group of our session; 0: in one of its own, whose number is
  // the child's. It is there before Spawn returns, so that kill(-group, …) does
  // not miss the child. Not with new_session.
  std::optional<pid_t> process_group;

  // Sent to the child when the *thread* that called Spawn ends, so call it
  // from one that lives as long as the process; 0: none. A parent that is dead
  // before the child can ask for the signal counts as well: the child then
  // never runs the program. See PR_SET_PDEATHSIG in prctl(2); the kernel drops
  // the request when a set-user-ID program is executed.
  int death_signal = 0;
};

// Starts it. The child has default signal dispositions and an empty signal
// mask. Errors name the step and the program: NotFound, PermissionDenied,
// InvalidArgument, ResourceExhausted. The pidfd comes with the child
// (CLONE_PIDFD): there is no moment at which its number could mean another.
absl::StatusOr<Process> Spawn(const SpawnOptions& options);

// The caller's environment, for SpawnOptions::env.
std::vector<std::string> InheritEnv();

}  // namespace ipc::process

#endif  // IPC_PROCESS_SPAWN_H_
