// A real Python process that plays a role of python_peer.py.
//
// Example:
//
//   PythonPeer python("memory_create", {name});
//   ASSERT_EQ(python.Hear(), "ready");
//   ... look at what it has made ...
//   python.Tell();  // its hear() returns
//   EXPECT_EQ(python.Wait(), 0) << python.complaint();
//
// The rule needs data = ["python_peer.py"].
#ifndef TESTS_IPC_SHM_PYTHON_PEER_H_
#define TESTS_IPC_SHM_PYTHON_PEER_H_

#include <optional>
#include <string>
#include <vector>

#include "ipc/base/unique_fd.h"
#include "ipc/process/process.h"

namespace ipc::shm {

class PythonPeer {
 public:
  PythonPeer(const std::string& role, const std::vector<std::string>& names);
  PythonPeer(const PythonPeer&) = delete;
  PythonPeer& operator=(const PythonPeer&) = delete;
  // Kills it, if it is not waited for.
  ~PythonPeer();

  // The next line that it says; empty if it has ended instead.
  std::string Hear() const;
  void Tell() const;
  void Kill() const;

  // Returns when it has ended, and so has its resource tracker, a process that
  // removes what Python takes for leaked after Python itself is gone. Gives the
  // exit status, or minus the number of the signal that ended it.
  int Wait();
  // What both have written to stderr. REQUIRES: Wait() has returned.
  const std::string& complaint() const { return complaint_; }

 private:
  UniqueFd talk_;    // its stdin and stdout
  UniqueFd stderr_;  // which the tracker has, too
  std::optional<process::Process> process_;
  std::string complaint_;
};

}  // namespace ipc::shm

#endif  // TESTS_IPC_SHM_PYTHON_PEER_H_
