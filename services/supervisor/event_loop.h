// One thread, one epoll, and handlers that never block.
//
// Example:
//
//   EventLoop loop;
//   loop.Watch(fd, EPOLLIN, [&](uint32_t events) { … loop.Quit(); });
//   loop.RunAfter(absl::Seconds(5), [&] { … });
//   loop.Run();
//
// Handlers may watch, unwatch and close anything, themselves included: an event
// that was already on its way to a handler that is gone is dropped.
//
// Thread safety: none.
#ifndef SERVICES_SUPERVISOR_EVENT_LOOP_H_
#define SERVICES_SUPERVISOR_EVENT_LOOP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "ipc/base/unique_fd.h"

namespace parley::supervisor {

class EventLoop {
 public:
  using WatchId = uint64_t;
  using TimerId = std::pair<absl::Time, uint64_t>;

  EventLoop();

  // Calls `handler` with the epoll events (EPOLLIN, …; level-triggered) of
  // `fd`, which must stay open until Unwatch.
  WatchId Watch(int fd, uint32_t events, std::function<void(uint32_t)> handler);
  void Modify(WatchId id, uint32_t events);
  void Unwatch(WatchId id);

  // Calls `handler` once, not before `delay` has passed.
  TimerId RunAfter(absl::Duration delay, std::function<void()> handler);
  // Does nothing if it has run.
  void Cancel(TimerId id);

  // Calls `handler` after the handlers of the events at hand.
  void Post(std::function<void()> handler);

  // Until Quit.
  void Run();
  void Quit() { quit_ = true; }

 private:
  struct Watched {
    int fd;
    // Shared, so that a handler may unwatch itself while it runs.
    std::shared_ptr<std::function<void(uint32_t)>> handler;
  };

  int PollTimeout() const;
  void RunPosted();
  void RunDueTimers();

  ipc::UniqueFd epoll_;
  uint64_t last_id_ = 0;
  std::unordered_map<WatchId, Watched> watched_;
  std::map<TimerId, std::function<void()>> timers_;
  std::vector<std::function<void()>> posted_;
  bool quit_ = false;
};

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_EVENT_LOOP_H_
