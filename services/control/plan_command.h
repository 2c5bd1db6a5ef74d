// `parley plan FILE`: whether a scenario makes sense, and what running it would
// do.
#ifndef SERVICES_CONTROL_PLAN_COMMAND_H_
#define SERVICES_CONTROL_PLAN_COMMAND_H_

#include <string>

namespace parley::control {

struct PlanCommandOptions {
  std::string file = {};
  bool json = false;  // PlanResponse of control.proto
  std::string workspace = {};
  std::string argv0 = {};
};

// Exits 64 with what is wrong, a line each.
int PlanCommand(const PlanCommandOptions& options);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_PLAN_COMMAND_H_
