// A program that is a fork server: children exit with the length of their
// argument.
#include <vector>

#include "absl/strings/string_view.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/serve_forks.h"

int main() {
  return ipc::process::ServeForks(
      {{"length",
        [](absl::string_view argument,
           const std::vector<ipc::UniqueFd>& /*fds*/) {
          return static_cast<int>(argument.size());
        }}},
      ipc::UniqueFd(ipc::process::kForkServerFd));
}
