#include "ipc/rendezvous/socket_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/private_fds.h"
#include "ipc/base/unique_fd.h"
#include "ipc/rendezvous/address.h"

namespace ipc::rendezvous::internal {
namespace {

// Each try loses to another process that has just stopped listening.
constexpr int kTries = 100;

// rename(2), but EEXIST if `to` is there.
int RenameNoReplace(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(),
                RENAME_NOREPLACE) == 0) {
    return 0;
  }
  // Not every file system knows that, and a link does not replace either.
  if (errno != EINVAL && errno != ENOSYS) return -1;
  if (link(from.c_str(), to.c_str()) != 0) return -1;
  return unlink(from.c_str());
}

absl::Status InTheWay(absl::string_view path, absl::string_view what) {
  return absl::AlreadyExistsError(
      absl::StrCat("listening at unix:", path, ": ", what));
}

}  // namespace

std::string SocketFile::LockPath(absl::string_view path) {
  return absl::StrCat(path, ".lock");
}

SocketFile::SocketFile(absl::string_view path, int lock, PrivateFds& fds)
    : path_(path), fds_(&fds), lock_(lock), owner_(getpid()) {}

SocketFile::SocketFile(SocketFile&& other) noexcept
    : path_(std::move(other.path_)),
      fds_(other.fds_),
      lock_(std::exchange(other.lock_, -1)),
      owner_(other.owner_),
      identity_(other.identity_) {}

SocketFile::~SocketFile() {
  if (lock_ < 0 || owner_ != getpid()) return;
  Identity there;
  if (identity_ != Identity()) {
    // Somebody may have removed ours and listen there without a lock.
    if (IsSocket(path_, &there) && there == identity_) unlink(path_.c_str());
    if (IsSocket(NewPath(), &there) && there == identity_) {
      unlink(NewPath().c_str());
    }
  }
  // Last, and while it is locked: who opens it before finds out; see Lock.
  unlink(LockPath(path_).c_str());
  fds_->Close(lock_);
}

absl::StatusOr<int> SocketFile::Lock(absl::string_view path, PrivateFds& fds) {
  const std::string lock_path = LockPath(path);
  for (int i = 0; i < kTries; ++i) {
    const int lock = fds.Open([&] {
      return open(lock_path.c_str(),
                  O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    });
    if (lock < 0) {
      if (errno == ELOOP) return InTheWay(path, "its .lock is a symbolic link");
      return PosixError(errno, absl::StrCat("opening ", lock_path));
    }
    struct stat ours;
    if (fstat(lock, &ours) != 0) {
      return PosixError(errno, absl::StrCat("fstat of ", lock_path));
    }
    if (!S_ISREG(ours.st_mode) || ours.st_uid != geteuid()) {
      return absl::PermissionDeniedError(
          absl::StrCat("listening at unix:", path, ": ", lock_path,
                       " is not a file of ours: choose another path"));
    }
    if (RetryOnEintr([&] { return flock(lock, LOCK_EX | LOCK_NB); }) != 0) {
      if (errno == EWOULDBLOCK) {
        return InTheWay(path, "another process listens there");
      }
      return PosixError(errno, absl::StrCat("locking ", lock_path));
    }
    // Whoever had it before may have removed it since we opened it, and then
    // the next one has a lock file of his own.
    struct stat there;
    if (lstat(lock_path.c_str(), &there) == 0 && there.st_dev == ours.st_dev &&
        there.st_ino == ours.st_ino) {
      return lock;
    }
    fds.Close(lock);
  }
  return absl::UnavailableError(
      absl::StrCat("listening at unix:", path,
                   ": others begin and stop to listen there all "
                   "the time"));
}

SocketFile::Identity SocketFile::IdentityOf(const struct stat& stat) {
  return {stat.st_dev, stat.st_ino, stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec};
}

bool SocketFile::IsSocket(const std::string& path, Identity* identity) {
  struct stat stat;
  if (lstat(path.c_str(), &stat) != 0 || !S_ISSOCK(stat.st_mode) ||
      stat.st_uid != geteuid()) {
    return false;
  }
  *identity = IdentityOf(stat);
  return true;
}

// What one who was killed has left.
absl::Status SocketFile::RemoveStale() {
  char text[128] = {};
  Identity recorded;
  Identity read;
  if (pread(lock_, text, sizeof(text) - 1, 0) > 0 &&
      sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNd64 ".%" SCNd64, &read.device,
             &read.inode, &read.seconds, &read.nanoseconds) == 4) {
    recorded = read;
  }
  struct stat stat;
  Identity there;
  if (lstat(path_.c_str(), &stat) == 0) {
    if (!IsSocket(path_, &there) || there != recorded) {
      return InTheWay(path_,
                      "something is there that no Listener has left: remove it "
                      "if nobody uses it, or choose another path");
    }
    unlink(path_.c_str());
  }
  if (lstat(NewPath().c_str(), &stat) == 0) {
    if (!IsSocket(NewPath(), &there)) {
      return InTheWay(path_, absl::StrCat(NewPath(), " is in the way"));
    }
    unlink(NewPath().c_str());
  }
  return absl::OkStatus();
}

absl::Status SocketFile::Examine(mode_t mode) {
  const std::string new_path = NewPath();
  const auto failed = [&](absl::string_view step) {
    return PosixError(errno, absl::StrCat("listening at unix:", path_, ": ",
                                          step, " of ", new_path));
  };
  // By a descriptor: should somebody put a link in its place, then what is
  // looked at, and changed, is still the same file.
  const UniqueFd file(open(new_path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!file.ok()) return failed("open");
  struct stat stat;
  if (fstat(file.get(), &stat) != 0) return failed("fstat");
  if (!S_ISSOCK(stat.st_mode) || stat.st_uid != geteuid()) {
    return InTheWay(path_,
                    absl::StrCat("somebody has just replaced ", new_path));
  }
  identity_ = IdentityOf(stat);
  // The umask may have taken something away. fchmod refuses an O_PATH.
  if ((stat.st_mode & 07777) != (mode & 07777) &&
      chmod(absl::StrCat("/proc/self/fd/", file.get()).c_str(), mode) != 0) {
    return failed("chmod");
  }
  return absl::OkStatus();
}

absl::Status SocketFile::Publish(int socket, mode_t mode, int backlog) {
  const auto failed = [&](absl::string_view step) {
    return PosixError(errno,
                      absl::StrCat("listening at unix:", path_, ": ", step));
  };
  const std::string new_path = NewPath();
  absl::StatusOr<Address::Socket> address = Address::Unix(new_path).ToSocket();
  if (!address.ok()) return address.status();
  // Of the socket, before there is a file: that then has no more, see unix(7).
  if (fchmod(socket, mode) != 0) return failed("fchmod");
  if (bind(socket, address->get(), address->size) != 0) return failed("bind");
  if (auto status = Examine(mode); !status.ok()) return status;
  const std::string record =
      absl::StrCat(identity_.device, " ", identity_.inode, " ",
                   identity_.seconds, ".", identity_.nanoseconds, "\n");
  if (ftruncate(lock_, 0) != 0 ||
      pwrite(lock_, record.data(), record.size(), 0) !=
          static_cast<ssize_t>(record.size())) {
    return failed("writing the lock file");
  }
  if (listen(socket, backlog) != 0) return failed("listen");
  if (RenameNoReplace(new_path, path_) != 0) {
    if (errno == EEXIST) {
      return InTheWay(path_, "somebody has just put something there");
    }
    return failed("publishing the socket");
  }
  return absl::OkStatus();
}

absl::StatusOr<SocketFile> SocketFile::Listen(int socket,
                                              absl::string_view path,
                                              mode_t mode, int backlog,
                                              PrivateFds& fds) {
  if (path.empty() || path.size() > Address::kMaxPathBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("listening at unix:", path, ": a path has 1 to ",
                     Address::kMaxPathBytes, " bytes"));
  }
  absl::StatusOr<int> lock = Lock(path, fds);
  if (!lock.ok()) return lock.status();
  SocketFile file(path, *lock, fds);
  if (auto status = file.RemoveStale(); !status.ok()) return status;
  if (auto status = file.Publish(socket, mode, backlog); !status.ok()) {
    return status;
  }
  return file;
}

}  // namespace ipc::rendezvous::internal
