#include "services/control/runtime_directory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ipc/base/posix_error.h"

namespace parley::control {
namespace {

using ipc::PosixError;

// No file name here is longer than "supervisor.sock".
constexpr size_t kLongestName = 15;

}  // namespace

std::string DefaultRuntimeDirectory() {
  const char* runtime = getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && runtime[0] == '/') {
    return absl::StrCat(runtime, "/parley");
  }
  return absl::StrCat("/tmp/parley-", getuid());
}

absl::StatusOr<RuntimeDirectory> RuntimeDirectory::Open(
    const std::string& path) {
  if (path.size() + 1 + kLongestName >= sizeof(sockaddr_un::sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the path of directory ", path,
        " is too long for sockets in it; use one of ",
        sizeof(sockaddr_un::sun_path) - kLongestName - 2, " bytes at most"));
  }
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return PosixError(errno, absl::StrCat("make directory ", path));
  }
  struct stat status;
  // Not stat: in /tmp anybody could have left a link here.
  if (lstat(path.c_str(), &status) != 0) {
    return PosixError(errno, absl::StrCat("look at directory ", path));
  }
  if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() ||
      (status.st_mode & 077) != 0) {
    return absl::PermissionDeniedError(absl::StrFormat(
        "%s is not a directory that user %d alone can use (owner %d, mode "
        "%04o); chmod 700 it, or name another by --directory",
        path, geteuid(), status.st_uid, status.st_mode & 07777));
  }
  return RuntimeDirectory{path};
}

absl::StatusOr<ipc::UniqueFd> TakeLock(const std::string& path) {
  ipc::UniqueFd fd(
      open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.ok()) return PosixError(errno, absl::StrCat("open ", path));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno == EWOULDBLOCK) {
    return absl::UnavailableError(absl::StrCat(path, " is held by another"));
  }
  return PosixError(errno, absl::StrCat("lock ", path));
}

absl::StatusOr<ipc::UniqueFd> ListenAt(const std::string& path) {
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is too long for a socket"));
  }
  memcpy(address.sun_path, path.data(), path.size());
  ipc::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.ok()) return PosixError(errno, "create a socket");
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return PosixError(errno, absl::StrCat("remove the stale ", path));
  }
  const PrivateUmask umask;
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
           sizeof(address)) != 0) {
    return PosixError(errno, absl::StrCat("bind a socket to ", path));
  }
  if (listen(fd.get(), SOMAXCONN) != 0) {
    return PosixError(errno, absl::StrCat("listen at ", path));
  }
  return fd;
}

PrivateUmask::PrivateUmask() : before_(umask(0177)) {}

PrivateUmask::~PrivateUmask() { umask(before_); }

}  // namespace parley::control
