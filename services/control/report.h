// What is kept of a run for the reports written afterwards.
//
// Example:
//
//   Report report = {.scenario = "pipe", .file = path};
//   RunScenario(link, plan, {}, [&](const auto& event) { report.Add(event); });
//
// Thread safety: none.
#ifndef SERVICES_CONTROL_REPORT_H_
#define SERVICES_CONTROL_REPORT_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "services/control/control.pb.h"

namespace parley::control {

struct Report {
  std::string scenario = {};
  std::string file = {};
  // The command that runs it again, with its seed.
  std::string reproduce = {};
  // What the verdict is to be; a scenario can be there to fail.
  v1::Verdict::Result expected = v1::Verdict::PASSED;

  uint64_t seed = 0;
  google::protobuf::Timestamp started = {};
  std::vector<v1::Check> checks = {};
  v1::Verdict verdict = {};
  // All but output, in order.
  std::vector<v1::RunScenarioResponse> history = {};
  // By process and stream.
  std::map<std::pair<std::string, v1::Output::Stream>, std::string> output = {};

  void Add(const v1::RunScenarioResponse& event);
  bool AsExpected() const { return verdict.result() == expected; }
};

// "passed", "time_limit", as --verdict takes it.
std::string VerdictName(v1::Verdict::Result result);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_REPORT_H_
