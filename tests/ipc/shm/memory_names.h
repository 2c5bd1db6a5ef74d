// Names in /dev/shm for one test, which are removed with it.
//
// Example:
//
//   MemoryNames names;
//   SharedMemory memory = *SharedMemory::Create(names.New(), 100);
#ifndef TESTS_IPC_SHM_MEMORY_NAMES_H_
#define TESTS_IPC_SHM_MEMORY_NAMES_H_

#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/testing/unique_name.h"

namespace ipc::shm {

class MemoryNames {
 public:
  MemoryNames() = default;
  MemoryNames(const MemoryNames&) = delete;
  MemoryNames& operator=(const MemoryNames&) = delete;
  ~MemoryNames() {
    for (const std::string& name : names_) unlink(Path(name).c_str());
  }

  std::string New() { return Adopt(testing::UniqueName("parley_shm_test")); }
  // Removes `name`, too.
  std::string Adopt(const std::string& name) {
    names_.push_back(name);
    return name;
  }

  static std::string Path(const std::string& name) {
    return absl::StrCat("/dev/shm/", name);
  }
  static bool Exists(const std::string& name) {
    return access(Path(name).c_str(), F_OK) == 0;
  }

 private:
  std::vector<std::string> names_;
};

}  // namespace ipc::shm

#endif  // TESTS_IPC_SHM_MEMORY_NAMES_H_
