#include "services/agent/listen_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "ipc/base/posix_error.h"

namespace parley::agent {
namespace {

constexpr int kFirstFd = 3;       // SD_LISTEN_FDS_START
constexpr int kMaxFds = 1 << 16;  // far beyond any RLIMIT_NOFILE in use

// The variable's value, which is removed from the environment.
std::optional<std::string> TakeVariable(const char* name) {
  const char* value = getenv(name);
  if (value == nullptr) return std::nullopt;
  std::string copy = value;
  unsetenv(name);
  return copy;
}

}  // namespace

absl::StatusOr<std::vector<NamedFd>> TakeListenFds() {
  const std::optional<std::string> pid_text = TakeVariable("LISTEN_PID");
  const std::optional<std::string> count_text = TakeVariable("LISTEN_FDS");
  const std::optional<std::string> names_text = TakeVariable("LISTEN_FDNAMES");
  if (!pid_text.has_value() || !count_text.has_value()) {
    return std::vector<NamedFd>();
  }
  int pid, count;
  if (!absl::SimpleAtoi(*pid_text, &pid)) {
    return absl::InvalidArgumentError(
        absl::StrCat("LISTEN_PID=", *pid_text, " is not a process id"));
  }
  if (pid != getpid()) return std::vector<NamedFd>();
  if (!absl::SimpleAtoi(*count_text, &count) || count < 0 || count > kMaxFds) {
    return absl::InvalidArgumentError(absl::StrCat(
        "LISTEN_FDS=", *count_text, " is not a number of descriptors"));
  }
  std::vector<std::string> names(count, "unknown");  // as systemd has it
  if (names_text.has_value() && count > 0) {
    names = absl::StrSplit(*names_text, ':');
    if (names.size() != static_cast<size_t>(count)) {
      return absl::InvalidArgumentError(
          absl::StrCat("LISTEN_FDNAMES=", *names_text, " names ", names.size(),
                       " descriptors, but LISTEN_FDS is ", count));
    }
  }
  // Check all before taking any.
  for (int i = 0; i < count; ++i) {
    if (fcntl(kFirstFd + i, F_SETFD, FD_CLOEXEC) != 0) {
      return ipc::PosixError(errno, absl::StrCat("granted channel \"", names[i],
                                                 "\", fd ", kFirstFd + i));
    }
  }
  std::vector<NamedFd> fds;
  for (int i = 0; i < count; ++i) {
    fds.push_back({std::move(names[i]), ipc::UniqueFd(kFirstFd + i)});
  }
  return fds;
}

}  // namespace parley::agent
