// A name for a file, segment or queue of one test that no other process uses:
// not even one with the same pid in a pid namespace of its own, where a sandbox
// puts each test.
#ifndef TESTS_TESTING_UNIQUE_NAME_H_
#define TESTS_TESTING_UNIQUE_NAME_H_

#include <cstdint>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"

namespace ipc::testing {

// `prefix`, followed by 64 random bits.
inline std::string UniqueName(absl::string_view prefix) {
  std::random_device random;
  const uint64_t bits = (uint64_t{random()} << 32) | random();
  return absl::StrCat(prefix, "_", absl::Hex(bits, absl::kZeroPad16));
}

}  // namespace ipc::testing

#endif  // TESTS_TESTING_UNIQUE_NAME_H_
