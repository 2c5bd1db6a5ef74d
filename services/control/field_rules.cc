#include "services/control/field_rules.h"

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ipc/process/exit_status.h"
#include "services/control/names.h"
#include "services/control/suggest.h"
#include "services/supervisor/proto_time.h"

namespace parley::control {

void CheckName(const Field& field, absl::string_view name,
               Diagnostics& diagnostics) {
  if (IsValidName(name)) return;
  if (name.empty()) {
    diagnostics.Add(field, "is not set; write a name of a-z, 0-9, _ and -");
    return;
  }
  diagnostics.Add(field, absl::StrCat("\"", name,
                                      "\" is no name; write 1 to 64 of a-z, "
                                      "0-9, _ and - instead"));
}

void CheckDuration(const Field& field,
                   const google::protobuf::Duration& duration,
                   bool zero_allowed, Diagnostics& diagnostics) {
  const absl::Duration value = supervisor::FromProto(duration);
  if (value < absl::ZeroDuration()) {
    diagnostics.Add(field,
                    absl::StrCat("is negative (", absl::FormatDuration(value),
                                 "); write `seconds: 5` for example"));
  } else if (value == absl::ZeroDuration() && !zero_allowed) {
    diagnostics.Add(field,
                    "is zero; leave it out for the default, or write "
                    "`seconds: 5` for example");
  }
}

void CheckSignal(const Field& field, absl::string_view name,
                 Diagnostics& diagnostics) {
  if (ipc::process::SignalByName(name) != 0) return;
  diagnostics.Add(
      field, absl::StrCat(
                 "there is no signal \"", name, "\"",
                 Suggest(name, {"SIGTERM", "SIGINT", "SIGKILL", "SIGHUP",
                                "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGABRT",
                                "SIGSEGV", "SIGPIPE", "SIGSTOP", "SIGCONT"})));
}

}  // namespace parley::control
