// What holds for single fields of a scenario, whatever message they are in.
// Each adds to `diagnostics` what is wrong and what to write instead.
#ifndef SERVICES_CONTROL_FIELD_RULES_H_
#define SERVICES_CONTROL_FIELD_RULES_H_

#include "absl/strings/string_view.h"
#include "google/protobuf/duration.pb.h"
#include "services/control/scenario_parser.h"

namespace parley::control {

// [a-z0-9_-]+, at most 64 characters.
void CheckName(const Field& field, absl::string_view name,
               Diagnostics& diagnostics);
// Not negative, and not zero either unless `zero_allowed`.
void CheckDuration(const Field& field,
                   const google::protobuf::Duration& duration,
                   bool zero_allowed, Diagnostics& diagnostics);
// "SIGTERM" or "TERM".
void CheckSignal(const Field& field, absl::string_view name,
                 Diagnostics& diagnostics);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_FIELD_RULES_H_
