// What tests have a fork server run.
#ifndef TESTS_IPC_PROCESS_FORK_FUNCTIONS_H_
#define TESTS_IPC_PROCESS_FORK_FUNCTIONS_H_

#include <unistd.h>

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "ipc/base/unique_fd.h"

namespace ipc::process {

// The code in its argument, or 99.
inline int Exit(absl::string_view argument,
                const std::vector<UniqueFd>& /*fds*/) {
  int code = 0;
  return absl::SimpleAtoi(argument, &code) ? code : 99;
}

// Its argument, to its first descriptor.
inline int Echo(absl::string_view argument, const std::vector<UniqueFd>& fds) {
  const auto size = static_cast<ssize_t>(argument.size());
  return write(fds[0].get(), argument.data(), argument.size()) == size ? 0 : 1;
}

}  // namespace ipc::process

#endif  // TESTS_IPC_PROCESS_FORK_FUNCTIONS_H_
