// Shows the events of a run to people, line by line:
//
//   receiver | Received message: Hello from sender!
//   receiver ! a line of its stderr
//   PASSED pipe (4 checks, 0.03 s)
//
// Lines of different processes never mix: one is shown when it is complete, or
// its process has ended.
//
// Thread safety: none.
#ifndef SERVICES_CONTROL_CONSOLE_H_
#define SERVICES_CONTROL_CONSOLE_H_

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/control/control.pb.h"

namespace parley::control {

struct ConsoleOptions {
  bool color = false;   // ANSI escape sequences
  bool states = false;  // also each state of each process
  bool json = false;    // instead of all that, a line of JSON for each event
};

class Console {
 public:
  // `write` is given one or more whole lines at a time.
  Console(const ConsoleOptions& options,
          std::function<void(absl::string_view)> write)
      : options_(options), write_(std::move(write)) {}

  void Show(const v1::RunScenarioResponse& event);

 private:
  void ShowOutput(const v1::Output& output);
  void ShowProcess(const v1::ProcessStatus& process);
  void ShowVerdict(const v1::Verdict& verdict);
  // What a process printed after its last newline.
  void Flush(const std::string& process);
  void FlushAll();
  std::string Prefix(const std::string& process,
                     v1::Output::Stream stream) const;
  std::string Colored(const char* color, absl::string_view text) const;

  const ConsoleOptions options_;
  const std::function<void(absl::string_view)> write_;
  std::string scenario_;
  uint64_t seed_ = 0;
  std::vector<v1::Check> checks_;
  // Incomplete lines.
  std::map<std::pair<std::string, v1::Output::Stream>, std::string> partial_;
};

}  // namespace parley::control

#endif  // SERVICES_CONTROL_CONSOLE_H_
