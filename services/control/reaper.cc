#include "services/control/reaper.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ipc/base/deadline.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"

namespace parley::control {
namespace {

// Children are listed by the thread that started them; those adopted, by any.
std::vector<pid_t> Children() {
  std::vector<pid_t> children;
  DIR* tasks = opendir("/proc/self/task");
  if (tasks == nullptr) return children;
  while (const dirent* entry = readdir(tasks)) {
    if (entry->d_name[0] == '.') continue;
    std::ifstream file(
        absl::StrCat("/proc/self/task/", entry->d_name, "/children"));
    for (pid_t pid; file >> pid;) children.push_back(pid);
  }
  closedir(tasks);
  return children;
}

bool HasEnded(pid_t pid) {
  siginfo_t info = {};
  return waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
         info.si_pid == pid;
}

}  // namespace

absl::Status BecomeSubreaper() {
  if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) {
    return ipc::PosixError(errno, "become a subreaper");
  }
  return absl::OkStatus();
}

bool WaitForEnd(pid_t pid, absl::Duration timeout) {
  const ipc::Deadline deadline = ipc::Deadline::After(timeout);
  const ipc::UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  while (!HasEnded(pid)) {
    if (!pidfd.ok() || deadline.HasPassed()) return false;
    pollfd p = {pidfd.get(), POLLIN, 0};
    poll(&p, 1, deadline.PollTimeout());
  }
  return true;
}

int KillDescendants() {
  int killed = 0;
  // The children of a child that dies become ours before it can be reaped, so
  // that once there is no child, there is no descendant either.
  while (true) {
    for (const pid_t child : Children()) {
      if (!HasEnded(child) && kill(child, SIGKILL) == 0) ++killed;
    }
    if (ipc::RetryOnEintr([] { return waitpid(-1, nullptr, 0); }) < 0) break;
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
  }
  return killed;
}

}  // namespace parley::control
