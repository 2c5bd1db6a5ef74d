// What is known of a process when a scenario has ended.
#ifndef SERVICES_CONTROL_OUTCOME_H_
#define SERVICES_CONTROL_OUTCOME_H_

#include <cstdint>
#include <map>
#include <string>

#include "services/supervisor/supervisor.pb.h"

namespace parley::control {

struct Outcome {
  supervisor::v1::ProcessInfo info = {};  // as last heard of
  // All that it printed…
  std::string out = {};
  std::string err = {};
  // … but for this many bytes.
  uint64_t dropped = 0;
  // Whether it was asked to stop, or said that it stops.
  bool stopping = false;
  // Why Parley stopped it before its time ("the time limit passed"), or failed
  // to hear of its end; empty if it ended as it would have.
  std::string cut_short = {};
};

using Outcomes = std::map<std::string, Outcome>;  // by process

// Whether nothing more will happen to it.
inline bool HasEnded(const supervisor::v1::ProcessInfo& info) {
  return info.state() == supervisor::v1::EXITED ||
         info.state() == supervisor::v1::FAILED;
}

// "exited with 3", "killed by SIGSEGV", "not ready within 10 s, then killed by
// SIGTERM", "could not be started: …".
std::string DescribeEnd(const supervisor::v1::ProcessInfo& info);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_OUTCOME_H_
