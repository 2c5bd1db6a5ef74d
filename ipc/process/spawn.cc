#include "ipc/process/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "absl/base/attributes.h"
#include "absl/base/config.h"
#include "absl/base/const_init.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "ipc/base/posix_error.h"

// ThreadSanitizer takes clone for a fork, and marks the memory that we share
// with the child as belonging to a forked process. It does not know this other
// name of the same function, nor may it keep a record of the child's calls,
// which never return.
#if defined(ABSL_HAVE_THREAD_SANITIZER)
extern "C" int __clone(int (*fn)(void*), void* stack, int flags, void* arg,
                       ...);
#define PARLEY_CLONE __clone
#define PARLEY_NO_TSAN __attribute__((no_sanitize("thread")))
#else
#define PARLEY_CLONE clone
#define PARLEY_NO_TSAN
#endif

namespace ipc::process {
namespace {

// Room for the child until execve. It runs a few system calls; execve itself
// needs none of it.
constexpr size_t kStackSize = 64 * 1024;

// All that the child needs, made ready by the parent: the child shares its
// memory with other threads of the parent, so it allocates nothing and takes no
// lock.
struct Plan {
  const char* path;
  char** argv;
  char** env;
  char* pid_digits;  // where the child writes its id, or null
  const char* working_directory;
  const std::vector<std::pair<int, rlimit>>* limits;
  const Identity* identity;                // or null
  const mode_t* umask;                     // or null
  const pid_t* process_group;              // or null
  std::vector<std::pair<int, int>> moves;  // {target, ours}, by target
  int null_fd;                             // /dev/null
  bool new_session;
  int death_signal;
  pid_t parent;
  int parent_pidfd;  // if there is a death signal

  // Written by the child when it fails, read by the parent after the child has
  // exited: CLONE_VFORK orders the two.
  const char* failed_step = nullptr;
  int error = 0;
};

// absl::StrCat allocates, so by hand. `digits` has room for 11.
PARLEY_NO_TSAN void WriteNumber(pid_t pid, char* digits) {
  char reversed[11];
  int n = 0;
  do {
    reversed[n++] = static_cast<char>('0' + pid % 10);
    pid /= 10;
  } while (pid != 0);
  while (n > 0) *digits++ = reversed[--n];
  *digits = '\0';
}

[[noreturn]] PARLEY_NO_TSAN void Fail(Plan& plan, const char* step) {
  plan.error = errno;
  plan.failed_step = step;
  _exit(127);
}

// Gives the child's descriptors their numbers and everything else
// close-on-exec.
PARLEY_NO_TSAN void ArrangeFds(Plan& plan) {
  const int past_targets =
      plan.moves.empty() ? 3 : std::max(3, plan.moves.back().first + 1);
  // Out of the way first, so that no target overwrites one that is still to be
  // moved.
  for (auto& [target, ours] : plan.moves) {
    ours = fcntl(ours < 0 ? plan.null_fd : ours, F_DUPFD_CLOEXEC, past_targets);
    if (ours < 0) Fail(plan, "duplicating a granted fd");
  }
  if (plan.death_signal != 0) {
    plan.parent_pidfd = fcntl(plan.parent_pidfd, F_DUPFD_CLOEXEC, past_targets);
    if (plan.parent_pidfd < 0) Fail(plan, "duplicating the parent's pidfd");
  }
  if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    Fail(plan, "close_range");
  }
  for (const auto& [target, ours] : plan.moves) {
    if (dup2(ours, target) < 0) Fail(plan, "placing a granted fd");
  }
}

// Groups first: without its user id the process may not change them. By system
// calls, not by libc's functions of these names: those make all threads of the
// process, which are the parent's, do the same.
PARLEY_NO_TSAN void Become(Plan& plan) {
  const Identity& identity = *plan.identity;
  const gid_t gid = identity.gid;
  const uid_t uid = identity.uid;
  if (syscall(SYS_setgroups, identity.groups.size(), identity.groups.data()) !=
      0) {
    Fail(plan, "setgroups");
  }
  if (syscall(SYS_setresgid, gid, gid, gid) != 0) Fail(plan, "setresgid");
  if (syscall(SYS_setresuid, uid, uid, uid) != 0) Fail(plan, "setresuid");
}

// Whether the parent is dead. If it is outside of the child's pid namespace,
// its number is 0 either way.
PARLEY_NO_TSAN bool IsOrphan(const Plan& plan) {
  const pid_t now = getppid();
  if (now != 0) return now != plan.parent;
  pollfd end = {.fd = plan.parent_pidfd, .events = POLLIN, .revents = 0};
  return poll(&end, 1, 0) == 1;
}

PARLEY_NO_TSAN int RunChild(void* argument) {
  Plan& plan = *static_cast<Plan*>(argument);

  // The parent had all signals blocked, so no handler of its runs in here, on
  // its memory. Dispositions first, then the mask.
  struct sigaction action = {};
  for (int signal = 1; signal < NSIG; ++signal) {
    if (sigaction(signal, nullptr, &action) != 0) continue;
    if (action.sa_handler == SIG_DFL) continue;
    action = {};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);
  }

  if (plan.new_session && setsid() < 0) Fail(plan, "setsid");
  if (plan.process_group != nullptr && setpgid(0, *plan.process_group) != 0) {
    Fail(plan, "setpgid to its process group");
  }
  ArrangeFds(plan);
  // After what a low RLIMIT_NOFILE would make fail, and before the rights to
  // raise one are given away.
  for (const auto& [resource, limit] : *plan.limits) {
    if (setrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0) {
      Fail(plan, "setrlimit");
    }
  }
  if (plan.identity != nullptr) Become(plan);
  // Not before: a change of identity drops it.
  if (plan.death_signal != 0) {
    if (prctl(PR_SET_PDEATHSIG, plan.death_signal) != 0) {
      Fail(plan, "PR_SET_PDEATHSIG");
    }
    // A parent that died before the line above will send nothing.
    if (IsOrphan(plan)) {
      errno = ESRCH;
      Fail(plan, "the parent is dead");
    }
  }
  if (plan.working_directory != nullptr && chdir(plan.working_directory) != 0) {
    Fail(plan, "chdir to its working directory");
  }
  if (plan.umask != nullptr) umask(*plan.umask);
  if (plan.pid_digits != nullptr) WriteNumber(getpid(), plan.pid_digits);

  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execve(plan.path, plan.argv, plan.env);
  Fail(plan, "execve");
}

std::vector<char*> CStrings(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 2);
  for (const std::string& s : strings) {
    result.push_back(const_cast<char*>(s.c_str()));
  }
  return result;
}

class ChildStack {
 public:
  ChildStack()
      : base_(mmap(nullptr, kStackSize, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0)) {}
  ~ChildStack() {
    if (ok()) munmap(base_, kStackSize);
  }
  ChildStack(const ChildStack&) = delete;
  ChildStack& operator=(const ChildStack&) = delete;
  bool ok() const { return base_ != MAP_FAILED; }
  void* top() const { return static_cast<char*>(base_) + kStackSize; }

 private:
  void* base_;
};

// Calls `start`, which makes a child that shares our memory and changes its
// identity. The kernel then takes away that this process is "dumpable", so that
// nobody of the child's new identity can trace the child and write into our
// memory. It is given back once the child has memory of its own; one at a time,
// as otherwise one call would give it back, or find it taken away, during
// another's time.
template <typename Start>
void KeepDumpable(Start start) {
  ABSL_CONST_INIT static absl::Mutex mutex(absl::kConstInit);
  absl::MutexLock lock(&mutex);
  const int before = prctl(PR_GET_DUMPABLE);
  start();
  if (before == 1) prctl(PR_SET_DUMPABLE, 1);
}

absl::Status OpenNull(UniqueFd& null_fd) {
  if (null_fd.ok()) return absl::OkStatus();
  null_fd.Reset(open("/dev/null", O_RDWR | O_CLOEXEC));
  return null_fd.ok() ? absl::OkStatus() : PosixError(errno, "open /dev/null");
}

}  // namespace

// What the Redirects of one Spawn open.
class RedirectedFds {
 public:
  // Adds to `fds`, the map of SpawnOptions, where the child's `target` goes.
  absl::Status Open(int target, const Redirect& redirect,
                    std::map<int, int>& fds) {
    if (redirect.kind_ == Redirect::Kind::kInherit) return absl::OkStatus();
    if (fds.count(target) != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "descriptor ", target,
          " is given twice, in `fds` and as a standard stream: leave one out"));
    }
    int fd = redirect.fd_;
    if (redirect.kind_ == Redirect::Kind::kFd && fd < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          fd, " is no descriptor, so the child's ", target,
          " cannot go there: is it closed? For /dev/null take Redirect::Null"));
    }
    if (redirect.kind_ == Redirect::Kind::kFile) {
      opened_[target].Reset(RetryOnEintr([&] {
        return open(redirect.path_.c_str(),
                    redirect.flags_ | O_CLOEXEC | O_NOCTTY, redirect.mode_);
      }));
      fd = opened_[target].get();
      if (fd < 0)
        return PosixError(errno, absl::StrCat("open ", redirect.path_));
    } else if (redirect.kind_ == Redirect::Kind::kPipe) {
      int ends[2];
      if (pipe2(ends, O_CLOEXEC) != 0) return PosixError(errno, "pipe");
      const int child_end = target == STDIN_FILENO ? 0 : 1;
      opened_[target].Reset(ends[child_end]);
      handed_back_[target].Reset(ends[1 - child_end]);
      receivers_[target] = redirect.ours_;
      fd = ends[child_end];
    }
    fds[target] = fd;
    return absl::OkStatus();
  }

  // Gives the caller its ends of pipes.
  void HandBack() {
    for (size_t i = 0; i < receivers_.size(); ++i) {
      if (receivers_[i] != nullptr) *receivers_[i] = std::move(handed_back_[i]);
    }
  }

 private:
  // By the child's descriptor: 0, 1, 2.
  std::array<UniqueFd, 3> opened_;
  std::array<UniqueFd, 3> handed_back_;
  std::array<UniqueFd*, 3> receivers_ = {};
};

absl::StatusOr<Process> Spawn(const SpawnOptions& options) {
  if (options.argv.empty()) {
    return absl::InvalidArgumentError("Spawn: argv is empty: name a program");
  }
  const std::string& path =
      options.path.empty() ? options.argv[0] : options.path;

  std::string pid_variable;
  std::vector<char*> argv = CStrings(options.argv);
  std::vector<char*> env = CStrings(options.env);
  Plan plan = {};
  if (!options.pid_env.empty()) {
    pid_variable = absl::StrCat(options.pid_env, "=");
    const size_t prefix = pid_variable.size();
    pid_variable.resize(prefix + 12);
    plan.pid_digits = pid_variable.data() + prefix;
    env.push_back(pid_variable.data());
  }
  argv.push_back(nullptr);
  env.push_back(nullptr);

  if (options.new_session && options.process_group.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "spawning ", path,
        ": a new session has a process group of its own: leave process_group "
        "unset"));
  }

  std::map<int, int> fds = options.fds;
  RedirectedFds redirected;
  const std::pair<int, const Redirect*> streams[] = {
      {STDIN_FILENO, &options.standard_input},
      {STDOUT_FILENO, &options.standard_output},
      {STDERR_FILENO, &options.standard_error}};
  for (const auto& [target, redirect] : streams) {
    if (absl::Status s = redirected.Open(target, *redirect, fds); !s.ok()) {
      return Annotate(s, absl::StrCat("spawning ", path));
    }
  }

  UniqueFd null_fd;
  for (const auto& [target, ours] : fds) {
    if (target < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "spawning ", path, ": ", target, " is no descriptor of the child's"));
    }
    if (ours < -1) {
      return absl::InvalidArgumentError(
          absl::StrCat("spawning ", path, ": ", ours,
                       " is no descriptor, which the child's ", target,
                       " is to be: for /dev/null take -1"));
    }
    if (ours == -1) {
      if (absl::Status s = OpenNull(null_fd); !s.ok()) return s;
    }
    plan.moves.emplace_back(target, ours);
  }
  plan.null_fd = null_fd.get();
  plan.path = path.c_str();
  plan.argv = argv.data();
  plan.env = env.data();
  plan.working_directory = options.working_directory.empty()
                               ? nullptr
                               : options.working_directory.c_str();
  plan.limits = &options.limits;
  plan.identity = options.identity.has_value() ? &*options.identity : nullptr;
  plan.umask = options.umask.has_value() ? &*options.umask : nullptr;
  plan.process_group =
      options.process_group.has_value() ? &*options.process_group : nullptr;
  plan.new_session = options.new_session;
  plan.death_signal = options.death_signal;
  plan.parent = getpid();
  UniqueFd parent_pidfd;
  if (options.death_signal != 0) {
    parent_pidfd.Reset(
        static_cast<int>(syscall(SYS_pidfd_open, plan.parent, 0)));
    if (!parent_pidfd.ok()) {
      return PosixError(
          errno, absl::StrCat("spawning ", path, ": pidfd_open of its parent"));
    }
  }
  plan.parent_pidfd = parent_pidfd.get();

  ChildStack stack;
  if (!stack.ok()) return PosixError(errno, "mapping a stack for the child");

  int pidfd = -1;
  pid_t pid = -1;
  int clone_error = 0;
  const auto start = [&] {
    // No signal handler of ours may run in the child, and the thread must not
    // be cancelled between the clone and the bookkeeping.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = PARLEY_CLONE(RunChild, stack.top(),
                       CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &plan,
                       &pidfd);
    clone_error = errno;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  };
  if (plan.identity != nullptr) {
    KeepDumpable(start);
  } else {
    start();
  }

  if (pid < 0) {
    return PosixError(clone_error, absl::StrCat("spawning ", path));
  }
  Process process(pid, UniqueFd(pidfd));
  if (plan.failed_step != nullptr) {
    process.Join().IgnoreError();
    return PosixError(plan.error,
                      absl::StrCat("spawning ", path, ": ", plan.failed_step));
  }
  redirected.HandBack();
  return process;
}

std::vector<std::string> InheritEnv() {
  std::vector<std::string> result;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    result.emplace_back(*variable);
  }
  return result;
}

}  // namespace ipc::process
