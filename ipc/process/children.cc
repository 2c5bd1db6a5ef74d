#include "ipc/process/children.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"

namespace ipc::process {

absl::Status BecomeSubreaper() {
  if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
    return PosixError(errno, "PR_SET_CHILD_SUBREAPER");
  }
  return absl::OkStatus();
}

std::vector<pid_t> ListChildren() {
  std::vector<pid_t> children;
  DIR* tasks = opendir("/proc/self/task");
  if (tasks == nullptr) return children;
  while (const dirent* task = readdir(tasks)) {
    if (task->d_name[0] == '.') continue;
    std::ifstream list(
        absl::StrCat("/proc/self/task/", task->d_name, "/children"));
    for (pid_t pid; list >> pid;) children.push_back(pid);
  }
  closedir(tasks);
  return children;
}

void KillAllChildren() {
  while (true) {
    // A child cannot be reaped between the listing and the kill but by us, so
    // its process id is still its own.
    for (const pid_t pid : ListChildren()) kill(pid, SIGKILL);
    // One at a time: whose children come to us is listed in the next round.
    if (RetryOnEintr([] { return waitpid(-1, nullptr, 0); }) < 0) return;
  }
}

}  // namespace ipc::process
