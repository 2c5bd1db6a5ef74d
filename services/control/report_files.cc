#include "services/control/report_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/json_util.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"

namespace parley::control {
namespace {

absl::Status MakeDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0777) == 0 || errno == EEXIST) {
    return absl::OkStatus();
  }
  return ipc::PosixError(errno, absl::StrCat("make directory ", path));
}

}  // namespace

absl::Status WriteFile(const std::string& path, absl::string_view content) {
  const ipc::UniqueFd fd(
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!fd.ok()) return ipc::PosixError(errno, absl::StrCat("create ", path));
  while (!content.empty()) {
    const ssize_t n = ipc::RetryOnEintr(
        [&] { return write(fd.get(), content.data(), content.size()); });
    if (n < 0) return ipc::PosixError(errno, absl::StrCat("write ", path));
    content.remove_prefix(n);
  }
  return absl::OkStatus();
}

absl::Status WriteLogs(const std::string& directory, const Report& report) {
  absl::Status status = MakeDirectory(directory);
  const std::string folder = absl::StrCat(directory, "/", report.scenario);
  if (status.ok()) status = MakeDirectory(folder);
  for (const auto& [key, output] : report.output) {
    const auto& [process, stream] = key;
    status.Update(WriteFile(
        absl::StrCat(folder, "/", process,
                     stream == v1::Output::STDERR ? ".stderr" : ".stdout"),
        output));
  }
  std::string history;
  for (const v1::RunScenarioResponse& event : report.history) {
    std::string json;
    (void)google::protobuf::util::MessageToJsonString(event, &json);
    absl::StrAppend(&history, json, "\n");
  }
  status.Update(WriteFile(absl::StrCat(folder, "/history.jsonl"), history));
  return status;
}

}  // namespace parley::control
