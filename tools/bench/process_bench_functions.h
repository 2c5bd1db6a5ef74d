// What the children of process_bench do.
#ifndef TOOLS_BENCH_PROCESS_BENCH_FUNCTIONS_H_
#define TOOLS_BENCH_PROCESS_BENCH_FUNCTIONS_H_

#include <unistd.h>

#include <vector>

#include "absl/strings/string_view.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/serve_forks.h"

namespace bench {

inline ipc::process::ForkFunctions ProcessBenchFunctions() {
  return {{"byte",
           [](absl::string_view, std::vector<ipc::UniqueFd> fds) {
             return write(fds[0].get(), "", 1) == 1 ? 0 : 1;
           }},
          {"nothing", [](absl::string_view, const std::vector<ipc::UniqueFd>&) {
             return 0;
           }}};
}

}  // namespace bench

#endif  // TOOLS_BENCH_PROCESS_BENCH_FUNCTIONS_H_
