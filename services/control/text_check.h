// Whether a text is as expected, and if not, in which way, for people.
//
// Example: of `equals: "Hello\n"`, for "Helo\n", it answers
//
//   expected exactly "Hello\n", seen "Helo\n"; they differ from byte 3 on, in
//   line 1: expected "lo\n", seen "o\n"
#ifndef SERVICES_CONTROL_TEXT_CHECK_H_
#define SERVICES_CONTROL_TEXT_CHECK_H_

#include <string>

#include "absl/strings/string_view.h"
#include "services/control/scenario.pb.h"

namespace parley::control {

// Empty if all of `expected` holds; else a line for each thing that does not.
std::string CheckText(const v1::Text& expected, absl::string_view seen);

// In quotes and escaped, and if it is long, its beginning and its size.
std::string Excerpt(absl::string_view text);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_TEXT_CHECK_H_
