#include "services/control/test_environment.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"

namespace parley::control {
namespace {

std::string Text(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

// What is no number counts as absent.
int64_t Number(const char* name, int64_t otherwise) {
  int64_t value;
  return absl::SimpleAtoi(Text(name), &value) ? value : otherwise;
}

// To stop a process takes 5 s by default, and a slow machine takes longer.
absl::Duration TimeLimit(absl::Duration test_timeout) {
  return std::max(test_timeout / 2, test_timeout * 0.9 - absl::Seconds(6));
}

}  // namespace

TestEnvironment TestEnvironment::Get() {
  TestEnvironment environment;
  environment.xml_output_file = Text("XML_OUTPUT_FILE");
  environment.undeclared_outputs_dir = Text("TEST_UNDECLARED_OUTPUTS_DIR");
  environment.only = Text("TESTBRIDGE_TEST_ONLY");
  environment.target = Text("TEST_TARGET");
  environment.random_seed = Number("TEST_RANDOM_SEED", 0);
  const int64_t timeout = Number("TEST_TIMEOUT", 0);
  if (timeout > 0) environment.time_limit = TimeLimit(absl::Seconds(timeout));
  environment.shards =
      static_cast<int>(std::max<int64_t>(1, Number("TEST_TOTAL_SHARDS", 1)));
  environment.shard = static_cast<int>(Number("TEST_SHARD_INDEX", 0));
  environment.shard_status_file = Text("TEST_SHARD_STATUS_FILE");
  return environment;
}

bool TestEnvironment::Selects(int n, absl::string_view name) const {
  if (n % shards != shard) return false;
  return only.empty() || absl::StrContains(name, only) ||
         fnmatch(only.c_str(), std::string(name).c_str(), 0) == 0;
}

absl::Status TestEnvironment::TouchShardStatusFile() const {
  if (shard_status_file.empty()) return absl::OkStatus();
  const ipc::UniqueFd fd(
      open(shard_status_file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  if (fd.ok()) return absl::OkStatus();
  return ipc::PosixError(errno, absl::StrCat("create ", shard_status_file));
}

}  // namespace parley::control
