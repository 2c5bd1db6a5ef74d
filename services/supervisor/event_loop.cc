#include "services/supervisor/event_loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

#include <algorithm>

namespace parley::supervisor {
namespace {

// Timers go by CLOCK_MONOTONIC, told as an absl::Time only for its arithmetic.
absl::Time MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::TimeFromTimespec(now);
}

// epoll refuses only what is our own mistake (a closed or repeated descriptor)
// or a machine out of memory; a supervisor that no longer sees its processes
// must not go on.
void CheckEpoll(int result, const char* operation) {
  if (result == 0) return;
  perror(operation);
  abort();
}

}  // namespace

EventLoop::EventLoop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  CheckEpoll(epoll_.ok() ? 0 : -1, "epoll_create1");
}

EventLoop::WatchId EventLoop::Watch(int fd, uint32_t events,
                                    std::function<void(uint32_t)> handler) {
  const WatchId id = ++last_id_;
  epoll_event event = {.events = events, .data = {.u64 = id}};
  CheckEpoll(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event),
             "EPOLL_CTL_ADD");
  watched_[id] = {
      fd, std::make_shared<std::function<void(uint32_t)>>(std::move(handler))};
  return id;
}

void EventLoop::Modify(WatchId id, uint32_t events) {
  epoll_event event = {.events = events, .data = {.u64 = id}};
  CheckEpoll(epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, watched_.at(id).fd, &event),
             "EPOLL_CTL_MOD");
}

void EventLoop::Unwatch(WatchId id) {
  const auto it = watched_.find(id);
  if (it == watched_.end()) return;
  CheckEpoll(epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, it->second.fd, nullptr),
             "EPOLL_CTL_DEL");
  watched_.erase(it);
}

EventLoop::TimerId EventLoop::RunAfter(absl::Duration delay,
                                       std::function<void()> handler) {
  const TimerId id = {MonotonicNow() + delay, ++last_id_};
  timers_[id] = std::move(handler);
  return id;
}

void EventLoop::Cancel(TimerId id) { timers_.erase(id); }

void EventLoop::Post(std::function<void()> handler) {
  posted_.push_back(std::move(handler));
}

int EventLoop::PollTimeout() const {
  if (!posted_.empty()) return 0;
  if (timers_.empty()) return -1;
  const absl::Duration left = timers_.begin()->first.first - MonotonicNow();
  // Rounded up, so as not to wake just before the timer is due.
  const int64_t milliseconds =
      absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1)));
  return static_cast<int>(std::clamp<int64_t>(milliseconds, 0, 1 << 30));
}

void EventLoop::RunPosted() {
  std::vector<std::function<void()>> posted;
  posted.swap(posted_);
  for (const auto& handler : posted) handler();
}

void EventLoop::RunDueTimers() {
  const absl::Time now = MonotonicNow();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    auto timer = timers_.extract(timers_.begin());
    timer.mapped()();
  }
}

void EventLoop::Run() {
  epoll_event events[64];
  while (!quit_) {
    const int n = epoll_wait(epoll_.get(), events, 64, PollTimeout());
    for (int i = 0; i < n; ++i) {
      // Not by reference: an epoll_event is packed.
      const uint64_t key = events[i].data.u64;
      // An earlier handler of this batch may have unwatched it.
      const auto it = watched_.find(key);
      if (it == watched_.end()) continue;
      const auto handler = it->second.handler;
      (*handler)(events[i].events);
    }
    RunDueTimers();
    RunPosted();
  }
}

}  // namespace parley::supervisor
