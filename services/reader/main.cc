// reader: prints the integer and the array of the shared memory that it was
// granted, as they are when it starts; the scenario says after whom that is.
//
// Exit status: 0 when it has printed them, 1 otherwise, with the reason on
// standard error.

#include <stdio.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_join.h"
#include "services/agent/agent.h"
#include "services/agent/shared_table.h"

ABSL_FLAG(std::string, channel, "",
          "name of the granted channel; empty: the only one");
ABSL_FLAG(uint32_t, length, 10, "elements of the array");
ABSL_FLAG(bool, summary, true, "print counts on standard error at the end");

namespace parley {
namespace {

absl::Status Run() {
  absl::StatusOr<agent::Agent> agent = agent::Agent::Adopt();
  if (!agent.ok()) return agent.status();
  auto table = agent::SharedTable::Adopt(*agent, absl::GetFlag(FLAGS_channel),
                                         absl::GetFlag(FLAGS_length));
  if (!table.ok()) return table.status();
  if (absl::Status s = agent->Ready(); !s.ok()) return s;

  absl::StatusOr<int32_t> value = table->value.Load();
  if (!value.ok()) return value.status();
  absl::StatusOr<std::vector<int32_t>> array = table->array.Snapshot();
  if (!array.ok()) return array.status();
  printf("Value: %d\n", *value);
  printf("Array: [%s]\n", absl::StrJoin(*array, ", ").c_str());
  if (absl::GetFlag(FLAGS_summary)) {
    fprintf(stderr, "read 1 value and %zu elements\n", array->size());
  }
  return agent->Stopping();
}

}  // namespace
}  // namespace parley

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("prints a granted shared integer and array");
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = parley::Run();
  if (status.ok()) return 0;
  fprintf(stderr, "reader: %s\n", status.ToString().c_str());
  return 1;
}
