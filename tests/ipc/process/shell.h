// Scripts of the shell, to be spawned.
#ifndef TESTS_IPC_PROCESS_SHELL_H_
#define TESTS_IPC_PROCESS_SHELL_H_

#include <string>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "ipc/process/process.h"
#include "ipc/process/spawn.h"
#include "tests/testing/pipe.h"

namespace ipc::process {

inline SpawnOptions Shell(const std::string& script) {
  SpawnOptions options;
  options.argv = {"/bin/sh", "-c", script};
  options.env = {"PATH=/usr/bin:/bin"};
  return options;
}

// What `options` prints on its standard output.
inline std::string OutputOf(SpawnOptions options) {
  testing::Pipe out;
  options.fds[1] = out.write_end.get();
  absl::StatusOr<Process> child = Spawn(options);
  EXPECT_TRUE(child.ok()) << child.status();
  out.write_end.Reset();
  std::string text = testing::ReadAll(out.read_end.get());
  EXPECT_EQ(child->Join()->exitcode(), 0);
  return text;
}

}  // namespace ipc::process

#endif  // TESTS_IPC_PROCESS_SHELL_H_
