// process_bench_server [byte]
//
// The children of process_bench, from a program that is linked statically, so
// that there is little for the kernel to map or to copy: a program that writes
// a byte and ends, or else a fork server.
#include <string.h>
#include <unistd.h>

#include "ipc/base/unique_fd.h"
#include "ipc/process/serve_forks.h"
#include "tools/bench/process_bench_functions.h"

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "byte") == 0) {
    return write(STDOUT_FILENO, "", 1) == 1 ? 0 : 1;
  }
  return ipc::process::ServeForks(bench::ProcessBenchFunctions(),
                                  ipc::UniqueFd(ipc::process::kForkServerFd));
}
