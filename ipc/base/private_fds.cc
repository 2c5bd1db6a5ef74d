#include "ipc/base/private_fds.h"

#include <pthread.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "ipc/base/posix_error.h"

namespace ipc {

// All of this process, for the fork handlers. The lock is held across fork, so
// a child finds the lists whole.
class PrivateFdsRegistry {
 public:
  static std::mutex& lock() { return lock_; }

  static absl::Status Add(PrivateFds* fds) {
    const std::lock_guard<std::mutex> guard(lock_);
    if (!handlers_installed_) {
      const int error = pthread_atfork(&Prepare, &InParent, &InChild);
      if (error != 0) return PosixError(error, "pthread_atfork");
      handlers_installed_ = true;
    }
    fds->next_ = first_;
    if (first_ != nullptr) first_->previous_ = fds;
    first_ = fds;
    return absl::OkStatus();
  }

  // REQUIRES: lock(). One that was never added is left alone.
  static void Remove(PrivateFds* fds) {
    if (fds->next_ != nullptr) fds->next_->previous_ = fds->previous_;
    if (fds->previous_ != nullptr) {
      fds->previous_->next_ = fds->next_;
    } else if (first_ == fds) {
      first_ = fds->next_;
    }
  }

 private:
  static void Prepare() { lock_.lock(); }
  static void InParent() { lock_.unlock(); }
  static void InChild() {
    for (PrivateFds* fds = first_; fds != nullptr; fds = fds->next_) {
      if (fds->in_child_) continue;
      for (const int fd : fds->owned_) close(fd);
      for (const int fd : fds->listed_) close(fd);
      fds->in_child_ = true;
    }
    lock_.unlock();
  }

  static std::mutex lock_;
  static PrivateFds* first_;
  static bool handlers_installed_;
};

std::mutex PrivateFdsRegistry::lock_;
PrivateFds* PrivateFdsRegistry::first_ = nullptr;
bool PrivateFdsRegistry::handlers_installed_ = false;

std::mutex& PrivateFds::fork_lock() { return PrivateFdsRegistry::lock(); }

absl::StatusOr<std::unique_ptr<PrivateFds>> PrivateFds::Create() {
  std::unique_ptr<PrivateFds> fds(new PrivateFds);
  if (auto status = PrivateFdsRegistry::Add(fds.get()); !status.ok()) {
    return status;
  }
  return fds;
}

PrivateFds::~PrivateFds() {
  const std::lock_guard<std::mutex> guard(fork_lock());
  PrivateFdsRegistry::Remove(this);
  if (in_child_) return;
  for (const int fd : owned_) close(fd);
}

void PrivateFds::Close(int fd) {
  const std::lock_guard<std::mutex> guard(fork_lock());
  if (in_child_ || std::erase(owned_, fd) == 0) return;
  close(fd);
}

void PrivateFds::Unlist(int fd) { std::erase(listed_, fd); }

}  // namespace ipc
