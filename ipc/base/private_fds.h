// Descriptors that a process keeps to itself: a forked child has none of them.
// Close-on-exec is not enough where the child does not exec: as long as it held
// them, a lock would outlive its owner, and peers would wait for one who is
// dead.
//
// Example:
//
//   absl::StatusOr<std::unique_ptr<PrivateFds>> fds = PrivateFds::Create();
//   if (!fds.ok()) return fds.status();
//   const int lock = (*fds)->Open([&] { return open(path, O_CLOEXEC); });
//   if (lock < 0) return PosixError(errno, "open");
//
// Fork: a pthread_atfork handler closes them in the child, before fork returns
// there; in_child() is then true, and this object, which keeps nothing but
// numbers that have lost their meaning, stays for the child to leave alone. A
// raw clone(2) that neither execs nor exits at once goes by no handler.
//
// Thread safety: for one thread at a time. A fork by another may happen
// meanwhile.
#ifndef IPC_BASE_PRIVATE_FDS_H_
#define IPC_BASE_PRIVATE_FDS_H_

#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"

namespace ipc {

class PrivateFds {
 public:
  static absl::StatusOr<std::unique_ptr<PrivateFds>> Create();
  PrivateFds(const PrivateFds&) = delete;
  PrivateFds& operator=(const PrivateFds&) = delete;
  // Closes what Open has opened.
  ~PrivateFds();

  // What `open` returns: a descriptor, which we own, or -1 and errno.
  template <typename Function>
  int Open(Function open) {
    const std::lock_guard<std::mutex> guard(fork_lock());
    const int fd = open();
    if (fd >= 0) owned_.push_back(fd);
    return fd;
  }
  // Closes one of them.
  void Close(int fd);

  // For descriptors that others own. Under fork_lock(), during which no fork
  // happens, they are opened and listed, and unlisted and closed; else a child
  // might get one, or close another file of that number.
  static std::mutex& fork_lock();
  void List(int fd) { listed_.push_back(fd); }
  void Unlist(int fd);

  // Whether this is a forked child, and everything closed.
  bool in_child() const { return in_child_; }

 private:
  friend class PrivateFdsRegistry;

  PrivateFds() = default;

  std::vector<int> owned_;
  std::vector<int> listed_;
  bool in_child_ = false;

  // The list of all in this process, under fork_lock().
  PrivateFds* previous_ = nullptr;
  PrivateFds* next_ = nullptr;
};

}  // namespace ipc

#endif  // IPC_BASE_PRIVATE_FDS_H_
