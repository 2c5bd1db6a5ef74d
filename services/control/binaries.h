// Finds the program that a scenario names by a Bazel label or a path.
//
// Example:
//
//   const BinaryResolver binaries(RunfilesRoots(argv[0], "parley"));
//   absl::StatusOr<std::string> path = binaries.Resolve("//services/sender",
//   "");
//
// Thread safety: const members from many threads.
#ifndef SERVICES_CONTROL_BINARIES_H_
#define SERVICES_CONTROL_BINARIES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace parley::control {

// The directories in which the file of label //P:N may be P/N, best first:
// those that Bazel names to a test or a `bazel run` (RUNFILES_DIR, TEST_SRCDIR,
// with the workspace's name), argv0.runfiles, the runfiles that argv0 lies in,
// and the bazel-bin that this executable was built into.
std::vector<std::string> RunfilesRoots(absl::string_view argv0,
                                       absl::string_view workspace);

class BinaryResolver {
 public:
  explicit BinaryResolver(std::vector<std::string> roots)
      : roots_(std::move(roots)) {}

  // An absolute path to an executable file. A label is "//P:N", or "//P" for
  // "//P:" and P's last component; anything else is a path, which starts from
  // `directory` unless it is absolute. NotFound lists the places looked in;
  // FailedPrecondition: it is no executable file; InvalidArgument: it is
  // neither a label nor a path.
  absl::StatusOr<std::string> Resolve(absl::string_view binary,
                                      absl::string_view directory) const;

 private:
  absl::StatusOr<std::string> ResolveLabel(absl::string_view label) const;

  std::vector<std::string> roots_;
};

}  // namespace parley::control

#endif  // SERVICES_CONTROL_BINARIES_H_
