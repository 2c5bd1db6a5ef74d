// `parley run FILE…`: runs scenarios to their verdicts, one after the other.
//
// Every file is planned before the first is run. Each then runs on a supervisor
// of its own, or over a server that is named by `connect`. Exit codes are in
// exit_codes.h; of several scenarios the worst counts, and a signal ends with
// 130 or 143 once what runs is down.
//
// Under `bazel test` it also heeds Bazel's environment (test_environment.h):
// the seed, the filter, the shard, the time limit, and where reports go.
#ifndef SERVICES_CONTROL_RUN_COMMAND_H_
#define SERVICES_CONTROL_RUN_COMMAND_H_

#include <cstdint>
#include <string>
#include <vector>

namespace parley::control {

struct RunCommandOptions {
  std::vector<std::string> files = {};
  std::string connect = {};  // a server's socket; empty: embedded
  std::string junit = {};    // file
  std::string log_dir = {};
  // What each verdict is to be: "passed", "failed", "inconclusive",
  // "time_limit", or "invalid" for a file that is to be refused. Any other
  // outcome, an infrastructure error above all, fails.
  std::string verdict = "passed";
  uint64_t seed = 0;  // instead of the scenarios' own; 0: those
  bool json = false;
  bool verbose = false;
  std::string supervisor = {};  // binary; empty: //services/supervisor
  std::string workspace = {};
  std::string argv0 = {};
};

int RunCommand(const RunCommandOptions& options);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_RUN_COMMAND_H_
