// SIGINT and SIGTERM as something to ask about.
//
// Example:
//
//   Interrupt interrupt([] { ipc::process::KillAllChildren(); });
//   while (!interrupt.signal()) { … }
//
// The first signal is remembered; a second one, from somebody who will not wait
// for an orderly end, calls `at_second` and ends the process at once.
//
// Thread safety: signal() from many threads. Create it before any other thread,
// since those inherit the mask that keeps the signals from them.
#ifndef SERVICES_CONTROL_INTERRUPT_H_
#define SERVICES_CONTROL_INTERRUPT_H_

#include <atomic>
#include <functional>
#include <thread>

#include "absl/time/time.h"
#include "ipc/base/unique_fd.h"

namespace parley::control {

class Interrupt {
 public:
  explicit Interrupt(std::function<void()> at_second = {});
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // SIGINT or SIGTERM once it has come, else 0.
  int signal() const { return signal_.load(); }
  // Polls readable once it has come.
  int poll_fd() const { return come_.get(); }
  // What a shell shows for a process that it killed: 130 or 143.
  int exit_code() const { return 128 + signal(); }

 private:
  void Watch(const std::function<void()>& at_second);

  std::atomic<int> signal_ = 0;
  ipc::UniqueFd come_;     // an eventfd
  ipc::UniqueFd end_;      // an eventfd: the thread is to end
  ipc::UniqueFd signals_;  // a signalfd
  std::thread thread_;
};

}  // namespace parley::control

#endif  // SERVICES_CONTROL_INTERRUPT_H_
