// writer: fills the integer and the array of the shared memory that it was
// granted: the integer with --value, element i of the array with i * --factor.
//
// Exit status: 0 when it is written, 1 otherwise, with the reason on standard
// error.

#include <stdio.h>

#include <cstdint>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/agent/agent.h"
#include "services/agent/shared_table.h"

ABSL_FLAG(std::string, channel, "",
          "name of the granted channel; empty: the only one");
ABSL_FLAG(int32_t, value, 5, "the integer");
ABSL_FLAG(int32_t, factor, 2, "element i becomes i times this");
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

  if (absl::Status s = table->value.Store(absl::GetFlag(FLAGS_value));
      !s.ok()) {
    return s;
  }
  {
    auto guard = table->array.Lock();
    if (!guard.ok()) return guard.status();
    for (size_t i = 0; i < guard->span().size(); ++i) {
      guard->span()[i] = static_cast<int32_t>(i) * absl::GetFlag(FLAGS_factor);
    }
    // All of it was written, whatever a writer before us left undone.
    guard->MarkConsistent();
  }
  if (absl::GetFlag(FLAGS_summary)) {
    fprintf(stderr, "wrote 1 value and %zu elements\n", table->array.size());
  }
  return agent->Stopping();
}

}  // namespace
}  // namespace parley

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("fills a granted shared integer and array");
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = parley::Run();
  if (status.ok()) return 0;
  fprintf(stderr, "writer: %s\n", status.ToString().c_str());
  return 1;
}
