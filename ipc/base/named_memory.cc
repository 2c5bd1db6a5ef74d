#include "ipc/base/named_memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ipc/base/posix_error.h"

namespace ipc {
namespace {

constexpr char kDirectory[] = "/dev/shm";
// How many that this process is about to remove may lie about, which only those
// of another PID namespace do, or of threads.
constexpr int kNamesAside = 1000;

std::string PathOf(absl::string_view name) {
  return absl::StrCat(kDirectory, "/", absl::StripPrefix(name, "/"));
}

// `status`, and what to do about it.
absl::Status WithWayOut(const absl::Status& status, absl::string_view way_out) {
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), "; ", way_out));
}

absl::Status NoFile(absl::string_view path) {
  return absl::InvalidArgumentError(
      absl::StrCat(path,
                   " is a directory or the like, not a file of shared "
                   "memory: remove it or take another name"));
}

bool IsOfThisUserOnly(const struct stat& stat) {
  return stat.st_uid == geteuid() && (stat.st_mode & 077) == 0;
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
  const bool is_full = errno == ENOSPC || errno == EDQUOT;
  const absl::Status status = PosixError(
      errno, absl::StrCat("allocating ", size, " bytes in ", kDirectory));
  if (!is_full) return status;
  return WithWayOut(status,
                    "remove what nobody uses any more, such as by "
                    "Segment::RemoveStale, or mount it larger");
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
    // Not by opening it, and closing it then: see own_descriptors.h.
    struct stat stat;
    if (CheckMemoryName(name).ok() &&
        fstatat(dirfd(directory), name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) ==
            0 &&
        S_ISREG(stat.st_mode) && IsOfThisUserOnly(stat)) {
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
    const bool is_taken = errno == EEXIST;
    const absl::Status status =
        PosixError(errno, absl::StrCat("naming shared memory ", name));
    if (!is_taken) return status;
    return WithWayOut(status, "open that, unlink it, or take another name");
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> OpenNamedMemory(absl::string_view name,
                                         Mapping::Access access) {
  if (absl::Status status = CheckMemoryName(name); !status.ok()) return status;
  const std::string path = PathOf(name);
  // O_NONBLOCK: somebody may have put a FIFO there.
  UniqueFd fd(open(path.c_str(),
                   (access == Mapping::Access::kRead ? O_RDONLY : O_RDWR) |
                       O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.ok()) {
    const int error = errno;
    if (error == ELOOP) {
      return absl::PermissionDeniedError(
          absl::StrCat(path, " is a symbolic link: remove it"));
    }
    if (error == EISDIR) return NoFile(path);
    const absl::Status status =
        PosixError(error, absl::StrCat("opening shared memory ", name));
    if (error == ENOENT) {
      return WithWayOut(
          status, "create it first, or look whether somebody has unlinked it");
    }
    if (error == EACCES) {
      return WithWayOut(status,
                        "it is another user's, or its mode forbids it: open it "
                        "as that user, for reading only, or take another name");
    }
    return status;
  }
  struct stat stat;
  if (fstat(fd.get(), &stat) != 0) {
    return PosixError(errno, absl::StrCat("fstat of ", path));
  }
  if (!S_ISREG(stat.st_mode)) return NoFile(path);
  if (!IsOfThisUserOnly(stat)) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, " belongs to user ", stat.st_uid, " with mode 0",
                     stat.st_mode >> 6 & 7, stat.st_mode >> 3 & 7,
                     stat.st_mode & 7, ": it must be user ", geteuid(),
                     "'s, and nobody else may access it (chmod 0600)"));
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

absl::StatusOr<bool> UnlinkIfSame(absl::string_view name, int fd) {
  if (absl::Status status = CheckMemoryName(name); !status.ok()) return status;
  const std::string path = PathOf(name);
  const auto is_same = [fd](const std::string& path) {
    struct stat ours, its;
    return fstat(fd, &ours) == 0 && lstat(path.c_str(), &its) == 0 &&
           ours.st_dev == its.st_dev && ours.st_ino == its.st_ino;
  };
  if (!is_same(path)) return false;
  // Whatever the name leads to now, it is what is looked at.
  std::string aside;
  int error = EEXIST;
  for (int i = 0; error == EEXIST && i < kNamesAside; ++i) {
    aside = PathOf(absl::StrCat(".removed.", getpid(), ".", i));
    error = renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, aside.c_str(),
                      RENAME_NOREPLACE) == 0
                ? 0
                : errno;
  }
  if (error == ENOENT) return false;
  if (error != 0) {
    return PosixError(error, absl::StrCat("removing shared memory ", name));
  }
  if (is_same(aside)) {
    if (unlink(aside.c_str()) == 0) return true;
    return PosixError(errno, absl::StrCat("removing shared memory ", aside));
  }
  // Another one: somebody has removed ours and given its name away meanwhile.
  if (renameat2(AT_FDCWD, aside.c_str(), AT_FDCWD, path.c_str(),
                RENAME_NOREPLACE) == 0) {
    return false;
  }
  return PosixError(errno, absl::StrCat("giving shared memory ", aside,
                                        " its name back, ", name));
}

}  // namespace ipc
