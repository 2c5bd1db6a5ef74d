#include "ipc/process/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"

// ThreadSanitizer takes clone for a fork, and marks the memory that we share
// with the child as belonging to a forked process. It does not know this other
// name of the same function, nor may it keep a record of the child's calls,
// which never return.
#if defined(__SANITIZE_THREAD__)
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
  std::vector<std::pair<int, int>> moves;  // {target, ours}, by target
  int null_fd;                             // /dev/null
  bool new_session;
  int death_signal;
  pid_t parent;

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
  if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    Fail(plan, "close_range");
  }
  for (const auto& [target, ours] : plan.moves) {
    if (dup2(ours, target) < 0) Fail(plan, "placing a granted fd");
  }
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

  if (plan.death_signal != 0) {
    if (prctl(PR_SET_PDEATHSIG, plan.death_signal) != 0) {
      Fail(plan, "PR_SET_PDEATHSIG");
    }
    // A parent that died before the line above will send nothing.
    if (getppid() != plan.parent) {
      errno = ESRCH;
      Fail(plan, "the parent is dead");
    }
  }
  if (plan.new_session && setsid() < 0) Fail(plan, "setsid");
  ArrangeFds(plan);
  if (plan.working_directory != nullptr && chdir(plan.working_directory) != 0) {
    Fail(plan, "chdir to its working directory");
  }
  // Last of what may fail for other reasons: a low RLIMIT_NOFILE would make the
  // steps above fail.
  for (const auto& [resource, limit] : *plan.limits) {
    if (setrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0) {
      Fail(plan, "setrlimit");
    }
  }
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

}  // namespace

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

  UniqueFd null_fd;
  for (const auto& [target, ours] : options.fds) {
    if (target < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "spawning ", path, ": ", target, " is no descriptor of the child's"));
    }
    if (ours < 0 && !null_fd.ok()) {
      null_fd.Reset(open("/dev/null", O_RDWR | O_CLOEXEC));
      if (!null_fd.ok()) return PosixError(errno, "open /dev/null");
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
  plan.new_session = options.new_session;
  plan.death_signal = options.death_signal;
  plan.parent = getpid();

  ChildStack stack;
  if (!stack.ok()) return PosixError(errno, "mapping a stack for the child");

  // No signal handler of ours may run in the child, and the thread must not be
  // cancelled between the clone and the bookkeeping.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int pidfd = -1;
  const pid_t pid = PARLEY_CLONE(RunChild, stack.top(),
                                 CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD,
                                 &plan, &pidfd);
  const int clone_error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);

  if (pid < 0) {
    return PosixError(clone_error, absl::StrCat("spawning ", path));
  }
  Process process(pid, UniqueFd(pidfd));
  if (plan.failed_step != nullptr) {
    process.Join().IgnoreError();
    return PosixError(plan.error,
                      absl::StrCat("spawning ", path, ": ", plan.failed_step));
  }
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
