// A folder for the sockets of one test, of a short path, removed with it.
#ifndef TESTS_IPC_RENDEZVOUS_TEMP_DIRECTORY_H_
#define TESTS_IPC_RENDEZVOUS_TEMP_DIRECTORY_H_

#include <stdlib.h>

#include <filesystem>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace ipc::rendezvous {

class TempDirectory {
 public:
  // Not TEST_TMPDIR, which may be longer than a socket's path can be.
  TempDirectory() : path_("/tmp/parley-XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) abort();
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  ~TempDirectory() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  std::string Path(absl::string_view name) const {
    return absl::StrCat(path_, "/", name);
  }
  // The names in it.
  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.insert(entry.path().filename());
    }
    return names;
  }

 private:
  std::string path_;
};

}  // namespace ipc::rendezvous

#endif  // TESTS_IPC_RENDEZVOUS_TEMP_DIRECTORY_H_
