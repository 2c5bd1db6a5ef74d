#include "tests/services/control/parley_process.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ipc/process/spawn.h"

namespace parley::control {
namespace {

std::string TempPath(absl::string_view name) {
  static int count = 0;
  const std::string directory =
      absl::StrCat(testing::TempDir(), "/", getpid(), "-", ++count);
  std::string pattern = directory + "XXXXXX";
  return absl::StrCat(mkdtemp(pattern.data()), "/", name);
}

ipc::process::Process Start(const std::vector<std::string>& args,
                            const std::map<std::string, std::string>& env,
                            const std::string& err_path, ipc::UniqueFd& out) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) abort();
  out.Reset(ends[0]);
  const ipc::UniqueFd write_end(ends[1]);
  const ipc::UniqueFd err(
      open(err_path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ipc::process::SpawnOptions options;
  options.argv = {Runfile("services/control/parley")};
  options.argv.insert(options.argv.end(), args.begin(), args.end());
  options.env = {"PATH=/usr/bin:/bin",
                 absl::StrCat("RUNFILES_DIR=", getenv("TEST_SRCDIR"))};
  for (const auto& [name, value] : env) {
    options.env.push_back(absl::StrCat(name, "=", value));
  }
  for (const char* name : {"ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"}) {
    if (const char* value = getenv(name); value != nullptr) {
      options.env.push_back(absl::StrCat(name, "=", value));
    }
  }
  options.fds = {{0, -1}, {1, write_end.get()}, {2, err.get()}};
  absl::StatusOr<ipc::process::Process> process = ipc::process::Spawn(options);
  EXPECT_TRUE(process.ok()) << process.status();
  return *std::move(process);
}

}  // namespace

ParleyProcess::ParleyProcess(const std::vector<std::string>& args,
                             const std::map<std::string, std::string>& env)
    : err_path_(TempPath("stderr")),
      process_(Start(args, env, err_path_, out_fd_)) {}

ParleyProcess::~ParleyProcess() {
  (void)process_.Kill();
  (void)process_.Join();
}

bool ParleyProcess::ReadMore() {
  char buffer[65536];
  const ssize_t n = read(out_fd_.get(), buffer, sizeof(buffer));
  if (n <= 0) return false;
  out_.append(buffer, n);
  return true;
}

std::string ParleyProcess::ReadLine() {
  size_t end;
  while ((end = out_.find('\n', line_)) == std::string::npos) {
    if (!ReadMore()) return "";
  }
  std::string line = out_.substr(line_, end - line_);
  line_ = end + 1;
  return line;
}

std::string ParleyProcess::ReadUntil(absl::string_view text) {
  while (true) {
    std::string line = ReadLine();
    if (absl::StrContains(line, text)) return line;
    if (line.empty() && !ReadMore()) return "";
  }
}

int ParleyProcess::Join() {
  while (ReadMore()) {
  }
  const absl::StatusOr<ipc::process::ExitStatus> status = process_.Join();
  EXPECT_TRUE(status.ok()) << status.status();
  return status.ok() ? status->exitcode() : -1000;
}

std::string ParleyProcess::err() const { return ReadFile(err_path_); }

std::string Runfile(absl::string_view path) {
  return absl::StrCat(getenv("TEST_SRCDIR"), "/", getenv("TEST_WORKSPACE"), "/",
                      path);
}

std::string WriteTempFile(absl::string_view name, absl::string_view content) {
  const std::string path = TempPath(name);
  std::ofstream(path) << std::string(content);
  return path;
}

std::string ReadFile(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::vector<pid_t> ChildrenOf(pid_t pid) {
  std::vector<pid_t> children;
  const std::string tasks = absl::StrCat("/proc/", pid, "/task");
  DIR* directory = opendir(tasks.c_str());
  if (directory == nullptr) return children;
  while (const dirent* entry = readdir(directory)) {
    std::ifstream file(absl::StrCat(tasks, "/", entry->d_name, "/children"));
    for (pid_t child; file >> child;) children.push_back(child);
  }
  closedir(directory);
  return children;
}

}  // namespace parley::control
