// Which bytes of what a process printed are text.
#ifndef SERVICES_CONTROL_UTF8_H_
#define SERVICES_CONTROL_UTF8_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace parley::control {

// The length of the character in UTF-8 that `text`, which is not empty, begins
// with; 0 if it begins with none, or with U+FFFE or U+FFFF, which are no
// characters.
size_t Utf8SequenceLength(absl::string_view text);

// `text` with a '?' for each byte that is no part of a character, as a protobuf
// string must be.
std::string ValidUtf8(absl::string_view text);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_UTF8_H_
