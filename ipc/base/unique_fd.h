// UniqueFd owns one file descriptor and closes it.
//
// Example:
//
//   ipc::UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
//   if (!fd.ok()) return ipc::PosixError(errno, absl::StrCat("open ", path));
//
// Every descriptor that Parley opens is close-on-exec until it is granted to a
// child by ipc::process::Spawn.
//
// Thread safety: as a plain int: const members from many threads, others from
// one at a time.
#ifndef IPC_BASE_UNIQUE_FD_H_
#define IPC_BASE_UNIQUE_FD_H_

#include <utility>

#include "absl/status/statusor.h"

namespace ipc {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    Reset(other.Release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Reset(); }

  // Whether a descriptor is owned.
  bool ok() const { return fd_ >= 0; }
  // The descriptor, which stays owned, or -1.
  int get() const { return fd_; }
  // Gives up ownership: the caller closes what is returned.
  [[nodiscard]] int Release() { return std::exchange(fd_, -1); }
  // Closes what is owned and takes over `fd`. Leaves errno as it was.
  void Reset(int fd = -1);

  // Another descriptor of the same open file description, close-on-exec.
  absl::StatusOr<UniqueFd> Duplicate() const;

 private:
  int fd_ = -1;
};

}  // namespace ipc

#endif  // IPC_BASE_UNIQUE_FD_H_
