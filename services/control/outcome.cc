#include "services/control/outcome.h"

#include "absl/strings/str_cat.h"
#include "ipc/process/exit_status.h"

namespace parley::control {

std::string DescribeEnd(const supervisor::v1::ProcessInfo& info) {
  namespace sup = supervisor::v1;
  if (info.state() == sup::FAILED) {
    return absl::StrCat("could not be started: ", info.error());
  }
  if (info.state() != sup::EXITED) return "did not end";
  if (info.exit().how_case() == sup::ExitStatus::HOW_NOT_SET) {
    return absl::StrCat("ended, nobody knows how: ", info.error());
  }
  const bool killed = info.exit().how_case() == sup::ExitStatus::kSignal;
  const ipc::process::ExitStatus status =
      killed ? ipc::process::ExitStatus::Killed(info.exit().signal())
             : ipc::process::ExitStatus::Exited(info.exit().code());
  if (info.error().empty()) return status.ToString();
  return absl::StrCat(info.error(), ", then ", status.ToString());
}

}  // namespace parley::control
