#include "services/agent/agent.h"

#include <errno.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "ipc/base/posix_error.h"

namespace parley::agent {
namespace {

// Signals come to the process, so there is one flag for it. Relaxed: nothing
// else is published with it.
std::atomic<bool> stop_requested_flag = false;
static_assert(std::atomic<bool>::is_always_lock_free,
              "else a signal handler may not touch it");

void RequestStop(int) {
  stop_requested_flag.store(true, std::memory_order_relaxed);
}

std::string NamesOf(const std::vector<NamedFd>& fds) {
  if (fds.empty()) return "none was granted";
  return absl::StrCat("granted are: ",
                      absl::StrJoin(fds, ", ", [](std::string* out, auto& fd) {
                        absl::StrAppend(out, "\"", fd.name, "\"");
                      }));
}

}  // namespace

absl::StatusOr<Agent> Agent::Adopt() {
  absl::StatusOr<std::vector<NamedFd>> fds = TakeListenFds();
  if (!fds.ok()) return fds.status();
  absl::StatusOr<Notifier> notifier = Notifier::FromEnvironment();
  if (!notifier.ok()) return notifier.status();

  // No SA_RESTART: a blocking call is to return.
  struct sigaction action = {};
  action.sa_handler = RequestStop;
  for (int signal : {SIGTERM, SIGINT}) {
    if (sigaction(signal, &action, nullptr) != 0) {
      return ipc::PosixError(errno, absl::StrCat("sigaction ", signal));
    }
  }
  return Agent(*std::move(fds), *std::move(notifier));
}

absl::StatusOr<ipc::UniqueFd> Agent::TakeFd(absl::string_view name) {
  if (name.empty() && fds_.size() != 1) {
    return absl::NotFoundError(absl::StrCat(
        "which channel to use is not clear: ", NamesOf(fds_),
        "; grant exactly one in the scenario, or name one with --channel"));
  }
  const auto it = std::find_if(
      fds_.begin(), fds_.end(),
      [name](const NamedFd& fd) { return name.empty() || fd.name == name; });
  if (it == fds_.end()) {
    return absl::NotFoundError(absl::StrCat("no channel was granted as \"",
                                            name, "\" (", NamesOf(fds_),
                                            "): add a grant to the scenario"));
  }
  ipc::UniqueFd fd = std::move(it->fd);
  fds_.erase(it);
  return fd;
}

absl::Status Agent::SetStatus(absl::string_view text) const {
  // A line end would begin another assignment.
  return notifier_.Notify(
      absl::StrCat("STATUS=", absl::StrReplaceAll(text, {{"\n", " "}})));
}

bool Agent::stop_requested() const {
  return stop_requested_flag.load(std::memory_order_relaxed);
}

}  // namespace parley::agent
