#include "ipc/mqueue/poller.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"

namespace ipc::mqueue {
namespace {

absl::Status Watch(int epoll, int fd) {
  epoll_event event = {};
  event.events = EPOLLIN;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0) {
    return absl::OkStatus();
  }
  return PosixError(errno, "polling a mqueue: epoll_ctl");
}

void Drain(int fd) {
  alignas(inotify_event) char buffer[4096];
  while (read(fd, buffer, sizeof(buffer)) == sizeof(buffer)) continue;
}

std::string PathOf(int fd) { return absl::StrCat("/proc/self/fd/", fd); }

}  // namespace

Poller::Poller(std::atomic<uint64_t>* armed, UniqueFd epoll, UniqueFd inotify,
               UniqueFd timer)
    : armed_(armed),
      epoll_(std::move(epoll)),
      inotify_(std::move(inotify)),
      timer_(std::move(timer)) {}

absl::StatusOr<std::unique_ptr<Poller>> Poller::Create(
    int fd, std::atomic<uint64_t>* armed, absl::Duration tick) {
  UniqueFd inotify(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!inotify.ok()) {
    return PosixError(errno,
                      "polling a mqueue: inotify_init (see "
                      "/proc/sys/fs/inotify/max_user_instances)");
  }
  if (inotify_add_watch(inotify.get(), PathOf(fd).c_str(), IN_MODIFY) < 0) {
    return PosixError(errno,
                      absl::StrCat("polling mqueue, fd ", fd, ": inotify"));
  }
  UniqueFd timer(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer.ok()) return PosixError(errno, "polling a mqueue: timerfd_create");
  itimerspec spec = {};
  spec.it_interval = absl::ToTimespec(tick);
  spec.it_value = spec.it_interval;
  if (timerfd_settime(timer.get(), 0, &spec, nullptr) != 0) {
    return PosixError(errno, "polling a mqueue: timerfd_settime");
  }
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.ok()) return PosixError(errno, "polling a mqueue: epoll_create");
  for (const int source : {inotify.get(), timer.get()}) {
    if (absl::Status status = Watch(epoll.get(), source); !status.ok()) {
      return status;
    }
  }
  return std::unique_ptr<Poller>(new Poller(
      armed, std::move(epoll), std::move(inotify), std::move(timer)));
}

void Poller::Arm() {
  Drain(inotify_.get());
  Drain(timer_.get());
  // The count first: who saw the bit with the old one cannot clear it any more.
  armed_->fetch_add(2);
  armed_->fetch_or(1);
}

void Poke(int fd, const FileIdentity& segment, std::atomic<uint64_t>* armed,
          uint64_t offset) {
  uint64_t ticket = armed->load();
  if ((ticket & 1) == 0) return;
  // Opened by its path: a descriptor as memfd_create returns it tells inotify
  // nothing, since Linux 6.14.
  const UniqueFd file(
      open(PathOf(fd).c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK));
  // Somebody may have closed the number that is not his, and got it again.
  if (!file.ok() || !segment.IsOf(file.get())) return;
  const char byte = 0;
  if (pwrite(file.get(), &byte, 1, static_cast<off_t>(offset)) != 1) return;
  armed->compare_exchange_strong(ticket, ticket & ~uint64_t{1});
}

}  // namespace ipc::mqueue
