// What a Python of its own measures.
#ifndef TOOLS_BENCH_PYTHON_H_
#define TOOLS_BENCH_PYTHON_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace bench {

// The `count` numbers that tools/bench/`script` prints in its first line. Ends
// this process if it does anything else.
std::vector<double> RunPython(absl::string_view script,
                              const std::vector<std::string>& arguments,
                              size_t count);

}  // namespace bench

#endif  // TOOLS_BENCH_PYTHON_H_
