#include "services/supervisor/orphans.h"

#include <signal.h>
#include <sys/wait.h>

#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "ipc/process/children.h"

namespace parley::supervisor {
namespace {

// The value of NOTIFY_SOCKET it was started with; empty if there is none.
std::string NotifyNameOf(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/environ"));
  const std::string environment{std::istreambuf_iterator<char>(file), {}};
  for (absl::string_view variable : absl::StrSplit(environment, '\0')) {
    if (absl::ConsumePrefix(&variable, "NOTIFY_SOCKET=")) {
      return std::string(variable);
    }
  }
  return "";
}

}  // namespace

void CleanUpOrphans(const std::function<bool(pid_t)>& is_managed,
                    const std::function<bool(absl::string_view)>& is_live) {
  for (const pid_t pid : ipc::process::ListChildren()) {
    if (is_managed(pid)) continue;
    if (waitpid(pid, nullptr, WNOHANG) != 0) continue;
    const std::string notify_name = NotifyNameOf(pid);
    // Not reaped yet, so the id is still its own. Its death raises SIGCHLD, and
    // so brings us here again, to reap it and to see whom it leaves behind.
    if (!notify_name.empty() && !is_live(notify_name)) kill(pid, SIGKILL);
  }
}

}  // namespace parley::supervisor
