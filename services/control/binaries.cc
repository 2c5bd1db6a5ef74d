#include "services/control/binaries.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace parley::control {
namespace {

// Where this library's own binary lies below bazel-bin.
constexpr char kOwnPath[] = "/services/control/parley";

bool IsDirectory(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool IsFile(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

std::string Absolute(const std::string& path) {
  if (absl::StartsWith(path, "/")) return path;
  char buffer[PATH_MAX];
  if (getcwd(buffer, sizeof(buffer)) == nullptr) return path;
  return absl::StrCat(buffer, "/", path);
}

std::string ExecutablePath() {
  char buffer[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", buffer, sizeof(buffer));
  return n < 0 ? "" : std::string(buffer, n);
}

}  // namespace

std::vector<std::string> RunfilesRoots(absl::string_view argv0,
                                       absl::string_view workspace) {
  std::vector<std::string> roots;
  const auto add = [&](const std::string& root) {
    if (IsDirectory(root) &&
        std::find(roots.begin(), roots.end(), root) == roots.end()) {
      roots.push_back(root);
    }
  };
  for (const char* variable : {"RUNFILES_DIR", "TEST_SRCDIR"}) {
    const char* value = getenv(variable);
    if (value != nullptr) add(Absolute(absl::StrCat(value, "/", workspace)));
  }
  const std::string program = Absolute(std::string(argv0));
  add(absl::StrCat(program, ".runfiles/", workspace));
  const std::string inside = absl::StrCat(".runfiles/", workspace, "/");
  const size_t position = program.rfind(inside);
  if (position != std::string::npos) {
    add(program.substr(0, position + inside.size() - 1));
  }
  absl::string_view executable;
  const std::string path = ExecutablePath();
  executable = path;
  if (absl::ConsumeSuffix(&executable, kOwnPath)) add(std::string(executable));
  return roots;
}

absl::StatusOr<std::string> BinaryResolver::ResolveLabel(
    absl::string_view label) const {
  const absl::string_view body = absl::StripPrefix(label, "//");
  const size_t colon = body.find(':');
  const std::string package(body.substr(0, colon));
  std::string name(colon == absl::string_view::npos
                       ? body.substr(body.rfind('/') + 1)
                       : body.substr(colon + 1));
  if (name.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", label, "\" is no label; write //package:name"));
  }
  std::vector<std::string> places;
  for (const std::string& root : roots_) {
    places.push_back(
        absl::StrCat(root, package.empty() ? "" : "/", package, "/", name));
    if (IsFile(places.back())) return places.back();
  }
  return absl::NotFoundError(absl::StrCat(
      "there is no binary ", label, "; add \"", label,
      "\" to `binaries` of the Bazel target that runs the scenario, or write "
      "the path of a program instead (looked for ",
      places.empty() ? "no file: there are no runfiles here"
                     : absl::StrJoin(places, ", "),
      ")"));
}

absl::StatusOr<std::string> BinaryResolver::Resolve(
    absl::string_view binary, absl::string_view directory) const {
  if (binary.empty()) {
    return absl::InvalidArgumentError(
        "is not set; write a label (//package:name) or a path");
  }
  if (absl::StartsWith(binary, "@")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", binary,
        "\" is of another repository; write //package:name or a path"));
  }
  std::string path(binary);
  if (absl::StartsWith(binary, "//")) {
    absl::StatusOr<std::string> found = ResolveLabel(binary);
    if (!found.ok()) return found;
    path = *std::move(found);
  } else if (!absl::StartsWith(binary, "/")) {
    path = Absolute(directory.empty() ? path
                                      : absl::StrCat(directory, "/", binary));
  }
  if (!IsFile(path)) {
    const char* what = IsDirectory(path) ? "is a directory" : "does not exist";
    return absl::NotFoundError(absl::StrCat(
        path, " ", what,
        "; write a label (//package:name), an absolute path, or one from the "
        "scenario file's directory (PATH is not searched)"));
  }
  if (access(path.c_str(), X_OK) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is not executable; try chmod +x"));
  }
  return path;
}

}  // namespace parley::control
