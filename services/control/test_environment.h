// What Bazel tells a test by environment variables, as far as a scenario heeds
// it. See https://bazel.build/reference/test-encyclopedia.
#ifndef SERVICES_CONTROL_TEST_ENVIRONMENT_H_
#define SERVICES_CONTROL_TEST_ENVIRONMENT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace parley::control {

struct TestEnvironment {
  std::string xml_output_file = {};         // XML_OUTPUT_FILE
  std::string undeclared_outputs_dir = {};  // TEST_UNDECLARED_OUTPUTS_DIR
  std::string only = {};                    // TESTBRIDGE_TEST_ONLY
  std::string target = {};                  // TEST_TARGET
  uint64_t random_seed = 0;                 // TEST_RANDOM_SEED; 0: none
  // From TEST_TIMEOUT, less what it takes to stop everything and to write the
  // report before Bazel kills us.
  absl::Duration time_limit = absl::InfiniteDuration();
  int shards = 1;                      // TEST_TOTAL_SHARDS
  int shard = 0;                       // TEST_SHARD_INDEX
  std::string shard_status_file = {};  // TEST_SHARD_STATUS_FILE

  // Of this process. Nothing is set if it is no test.
  static TestEnvironment Get();

  // Whether the n-th scenario, called `name`, is to run here: it is of this
  // shard, and matches `only`, a pattern as of fnmatch(3) or part of the name.
  bool Selects(int n, absl::string_view name) const;
  // Tells Bazel that sharding is understood, without which it would fail.
  absl::Status TouchShardStatusFile() const;
};

}  // namespace parley::control

#endif  // SERVICES_CONTROL_TEST_ENVIRONMENT_H_
