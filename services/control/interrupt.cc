#include "services/control/interrupt.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdint>

namespace parley::control {
namespace {

sigset_t Signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

void Set(const ipc::UniqueFd& event) {
  const uint64_t one = 1;
  // Cannot fail: nobody adds as much as would overflow it.
  (void)!write(event.get(), &one, sizeof(one));
}

}  // namespace

Interrupt::Interrupt(std::function<void()> at_second)
    : come_(eventfd(0, EFD_CLOEXEC)), end_(eventfd(0, EFD_CLOEXEC)) {
  const sigset_t signals = Signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signals_.Reset(signalfd(-1, &signals, SFD_CLOEXEC));
  thread_ = std::thread(
      [this, at_second = std::move(at_second)] { Watch(at_second); });
}

Interrupt::~Interrupt() {
  Set(end_);
  thread_.join();
}

void Interrupt::Watch(const std::function<void()>& at_second) {
  while (true) {
    pollfd fds[] = {{signals_.get(), POLLIN, 0}, {end_.get(), POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signals_.get(), &info, sizeof(info)) != sizeof(info)) continue;
    if (signal_.exchange(static_cast<int>(info.ssi_signo)) != 0) {
      if (at_second) at_second();
      _exit(exit_code());
    }
    Set(come_);
  }
}

}  // namespace parley::control
