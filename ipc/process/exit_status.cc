#include "ipc/process/exit_status.h"

#include <signal.h>
#include <string.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace ipc::process {

std::string ExitStatus::ToString() const {
  if (signal != 0) return absl::StrCat("killed by ", SignalName(signal));
  return absl::StrCat("exited with ", code);
}

std::string SignalName(int signal) {
  const char* name = sigabbrev_np(signal);
  if (name == nullptr) return absl::StrCat("signal ", signal);
  return absl::StrCat("SIG", name);
}

int SignalByName(absl::string_view name) {
  absl::ConsumePrefix(&name, "SIG");
  for (int signal = 1; signal < NSIG; ++signal) {
    const char* candidate = sigabbrev_np(signal);
    if (candidate != nullptr && name == candidate) return signal;
  }
  return 0;
}

}  // namespace ipc::process
