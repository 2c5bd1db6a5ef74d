// Writes what came of runs into files.
#ifndef SERVICES_CONTROL_REPORT_FILES_H_
#define SERVICES_CONTROL_REPORT_FILES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "services/control/report.h"

namespace parley::control {

// Replaces `path` by a file that holds `content`.
absl::Status WriteFile(const std::string& path, absl::string_view content);

// Writes into `directory`/SCENARIO, made if need be: PROCESS.stdout and
// PROCESS.stderr of each process that printed, and history.jsonl, a line of
// JSON for each event.
absl::Status WriteLogs(const std::string& directory, const Report& report);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_REPORT_FILES_H_
