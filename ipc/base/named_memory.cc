#include "ipc/base/named_memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ipc/base/memory.h"
#include "ipc/base/posix_error.h"

namespace ipc {
namespace {

constexpr char kDirectory[] = "/dev/shm";

std::string PathOf(absl::string_view name) {
  return absl::StrCat(kDirectory, "/", absl::StripPrefix(name, "/"));
}

// `mode` as of fallocate(2).
absl::Status Allocate(int fd, size_t size, int mode) {
  if (absl::Status status = CheckFitsMachine(kDirectory, size); !status.ok()) {
    return status;
  }
  if (RetryOnEintr([&] {
        return fallocate(fd, mode, 0, static_cast<off_t>(size));
      }) == 0) {
    return absl::OkStatus();
  }
  return PosixError(
      errno, absl::StrCat("allocating ", size, " bytes in ", kDirectory));
}

}  // namespace

absl::Status CheckMemoryName(absl::string_view name) {
  const absl::string_view bare = absl::StripPrefix(name, "/");
  if (!bare.empty() && bare.size() <= 254 && bare != "." && bare != ".." &&
      !absl::StrContains(bare, "/") &&
      !absl::StrContains(bare, absl::string_view("\0", 1))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", name,
      "\" is no name of shared memory: take 1 to 254 bytes without "
      "a slash"));
}

absl::StatusOr<UniqueFd> CreateUnnamedFile(size_t size) {
  UniqueFd fd(open(kDirectory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd.ok()) {
    return PosixError(errno, absl::StrCat("making a file in ", kDirectory));
  }
  if (auto status = Allocate(fd.get(), size, 0); !status.ok()) return status;
  return fd;
}

bool IsNamedMemory(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  return seals < 0 || (seals & F_SEAL_SHRINK) == 0;
}

absl::Status AllocateFile(int fd, size_t size) {
  struct stat stat;
  if (fstat(fd, &stat) == 0 &&
      static_cast<size_t>(stat.st_blocks) * 512 >= size) {
    return absl::OkStatus();  // a descriptor for reading could not do it
  }
  return Allocate(fd, size, FALLOC_FL_KEEP_SIZE);
}

bool HasName(int fd) {
  struct stat stat;
  return fstat(fd, &stat) == 0 && stat.st_nlink > 0;
}

absl::StatusOr<std::vector<std::string>> ListNamedMemory() {
  DIR* const directory = opendir(kDirectory);
  if (directory == nullptr) {
    return PosixError(errno, absl::StrCat("listing ", kDirectory));
  }
  std::vector<std::string> names;
  while (const dirent* entry = readdir(directory)) {
    const std::string name = entry->d_name;
    if (CheckMemoryName(name).ok() && OpenNamedMemory(name).ok()) {
      names.push_back(name);
    }
  }
  closedir(directory);
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status PublishMemory(int fd, absl::string_view name) {
  if (absl::Status status = CheckMemoryName(name); !status.ok()) return status;
  // By its path in /proc, which unlike AT_EMPTY_PATH asks for no capability.
  const std::string from = absl::StrCat("/proc/self/fd/", fd);
  if (linkat(AT_FDCWD, from.c_str(), AT_FDCWD, PathOf(name).c_str(),
             AT_SYMLINK_FOLLOW) != 0) {
    return PosixError(errno, absl::StrCat("naming shared memory ", name));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> OpenNamedMemory(absl::string_view name) {
  if (absl::Status status = CheckMemoryName(name); !status.ok()) return status;
  const std::string path = PathOf(name);
  // O_NONBLOCK: somebody may have put a FIFO there.
  UniqueFd fd(open(path.c_str(),
                   O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.ok()) {
    if (errno == ELOOP) {
      return absl::PermissionDeniedError(
          absl::StrCat(path, " is a symbolic link: remove it"));
    }
    return PosixError(errno, absl::StrCat("opening shared memory ", name));
  }
  struct stat stat;
  if (fstat(fd.get(), &stat) != 0) {
    return PosixError(errno, absl::StrCat("fstat of ", path));
  }
  if (!S_ISREG(stat.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is not a file of shared memory"));
  }
  if (stat.st_uid != geteuid() || (stat.st_mode & 077) != 0) {
    return absl::PermissionDeniedError(absl::StrCat(
        path, " belongs to user ", stat.st_uid, " with mode ",
        absl::Hex(stat.st_mode & 0777), " (hexadecimal): it must be user ",
        geteuid(), "'s, and nobody else may access it"));
  }
  return fd;
}

absl::Status UnlinkNamedMemory(absl::string_view name) {
  if (absl::Status status = CheckMemoryName(name); !status.ok()) return status;
  if (unlink(PathOf(name).c_str()) != 0) {
    return PosixError(errno, absl::StrCat("removing shared memory ", name));
  }
  return absl::OkStatus();
}

}  // namespace ipc
