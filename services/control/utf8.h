// Which bytes of what a process printed are text.
#ifndef SERVICES_CONTROL_UTF8_H_
#define SERVICES_CONTROL_UTF8_H_

#include <cstddef>

#include "absl/strings/string_view.h"

namespace parley::control {

// The length of the character in UTF-8 that `text`, which is not empty, begins
// with; 0 if it begins with none, or with U+FFFE or U+FFFF, which are no
// characters.
size_t Utf8SequenceLength(absl::string_view text);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_UTF8_H_
