#include "tests/testing/own_dev_shm.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace ipc::testing {
namespace {

bool Enter() {
  if (unshare(CLONE_NEWNS) == 0) return true;
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
  std::ofstream("/proc/self/setgroups") << "deny";
  std::ofstream("/proc/self/uid_map") << uid << " " << uid << " 1";
  std::ofstream("/proc/self/gid_map") << gid << " " << gid << " 1";
  return true;
}

}  // namespace

bool EnterOwnDevShm(const std::string& options) {
  if (Enter() &&
      mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
      mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV,
            absl::StrCat("mode=1777", options.empty() ? "" : ",", options)
                .c_str()) == 0) {
    return true;
  }
  ADD_FAILURE() << "mounting a /dev/shm of the test's own: " << strerror(errno)
                << "; run it as root, or allow user namespaces";
  return false;
}

unsigned GiveAway(const std::string& path) {
  constexpr uid_t kSomebody = 12345;
  if (chown(path.c_str(), kSomebody, kSomebody) == 0) return kSomebody;
  // One of root's, whom nobody is in our namespace.
  constexpr char kForeign[] = "/etc/passwd";
  struct stat file;
  if (mount(kForeign, path.c_str(), nullptr, MS_BIND, nullptr) != 0 ||
      stat(path.c_str(), &file) != 0 || file.st_uid == geteuid()) {
    ADD_FAILURE() << "a file of another user at " << path << ": "
                  << strerror(errno);
    return geteuid();
  }
  return file.st_uid;
}

}  // namespace ipc::testing
