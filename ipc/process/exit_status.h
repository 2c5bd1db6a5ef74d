// How a process ended, as of waitid(2).
#ifndef IPC_PROCESS_EXIT_STATUS_H_
#define IPC_PROCESS_EXIT_STATUS_H_

#include <string>

#include "absl/strings/string_view.h"

namespace ipc::process {

struct ExitStatus {
  // The process called exit(code), 0 to 255…
  static ExitStatus Exited(int code) { return {.code = code}; }
  // … or this signal killed it.
  static ExitStatus Killed(int signal) { return {.signal = signal}; }

  int code = 0;    // if signal is 0
  int signal = 0;  // 0 if it exited by itself

  bool success() const { return code == 0 && signal == 0; }
  // One number, as Python's Process.exitcode: the code, or minus the signal.
  int exitcode() const { return signal != 0 ? -signal : code; }
  // "exited with 3", "killed by SIGSEGV".
  std::string ToString() const;

  bool operator==(const ExitStatus&) const = default;
};

// "SIGTERM" for 15; "signal 77" for what has no name.
std::string SignalName(int signal);
// 15 for "SIGTERM" or "TERM"; 0 if there is no such signal.
int SignalByName(absl::string_view name);

}  // namespace ipc::process

#endif  // IPC_PROCESS_EXIT_STATUS_H_
