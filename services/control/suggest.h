// Names what was probably meant by a name that does not exist, for messages.
//
// Example: Suggest("mesages", {"acks", "messages"}) is
// `; write "messages" instead (there are: acks, messages)`.
#ifndef SERVICES_CONTROL_SUGGEST_H_
#define SERVICES_CONTROL_SUGGEST_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace parley::control {

// The end of an error message about `name`, which is none of `known`: the
// nearest of them, if any is near, and the list of all.
std::string Suggest(absl::string_view name, std::vector<std::string> known);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_SUGGEST_H_
