// Starts the parley binary for tests, in an environment that says nothing of
// the test it is part of.
#ifndef TESTS_SERVICES_CONTROL_PARLEY_PROCESS_H_
#define TESTS_SERVICES_CONTROL_PARLEY_PROCESS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/process.h"

namespace parley::control {

class ParleyProcess {
 public:
  // `env` is added to PATH and RUNFILES_DIR.
  explicit ParleyProcess(const std::vector<std::string>& args,
                         const std::map<std::string, std::string>& env = {});
  // Kills it if it still runs.
  ~ParleyProcess();

  const ipc::process::Process& process() const { return process_; }
  // The next line of its output, without the newline; waits for it. Empty at
  // the end.
  std::string ReadLine();
  // Reads lines until one contains `text`, which is returned; empty at the end.
  std::string ReadUntil(absl::string_view text);
  // Waits for its end: Python's exitcode, a signal as a negative number.
  int Join();
  // All output that was read; after Join, all there was.
  const std::string& out() const { return out_; }
  std::string err() const;

 private:
  bool ReadMore();

  std::string err_path_;
  ipc::UniqueFd out_fd_;
  ipc::process::Process process_;
  std::string out_;
  size_t line_ = 0;  // where the next line begins
};

// A file below the workspace's runfiles.
std::string Runfile(absl::string_view path);
// A new file of this content.
std::string WriteTempFile(absl::string_view name, absl::string_view content);
std::string ReadFile(const std::string& path);

// The children of a process that runs.
std::vector<pid_t> ChildrenOf(pid_t pid);

}  // namespace parley::control

#endif  // TESTS_SERVICES_CONTROL_PARLEY_PROCESS_H_
