#include "services/control/report.h"

namespace parley::control {

void Report::Add(const v1::RunScenarioResponse& event) {
  switch (event.event_case()) {
    case v1::RunScenarioResponse::kStarted:
      seed = event.started().seed();
      started = event.time();
      break;
    case v1::RunScenarioResponse::kOutput:
      output[{event.output().process(), event.output().stream()}] +=
          event.output().data();
      return;
    case v1::RunScenarioResponse::kCheck:
      checks.push_back(event.check());
      break;
    case v1::RunScenarioResponse::kVerdict:
      verdict = event.verdict();
      break;
    case v1::RunScenarioResponse::kProcess:
    case v1::RunScenarioResponse::EVENT_NOT_SET:
      break;
  }
  history.push_back(event);
}

std::string VerdictName(v1::Verdict::Result result) {
  switch (result) {
    case v1::Verdict::PASSED:
      return "passed";
    case v1::Verdict::FAILED:
      return "failed";
    case v1::Verdict::INCONCLUSIVE:
      return "inconclusive";
    case v1::Verdict::INFRASTRUCTURE:
      return "infrastructure";
    case v1::Verdict::TIME_LIMIT:
      return "time_limit";
    default:
      return "none";
  }
}

}  // namespace parley::control
