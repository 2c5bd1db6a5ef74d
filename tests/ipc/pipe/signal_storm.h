// While it lives, SIGALRM interrupts every system call of this process that
// sleeps.
#ifndef TESTS_IPC_PIPE_SIGNAL_STORM_H_
#define TESTS_IPC_PIPE_SIGNAL_STORM_H_

#include <signal.h>
#include <sys/time.h>

namespace ipc::pipe {

class SignalStorm {
 public:
  SignalStorm() {
    struct sigaction action = {};
    action.sa_handler = [](int) {};  // without SA_RESTART
    sigaction(SIGALRM, &action, &before_);
    const itimerval often = {{0, 500}, {0, 500}};
    setitimer(ITIMER_REAL, &often, nullptr);
  }
  SignalStorm(const SignalStorm&) = delete;
  SignalStorm& operator=(const SignalStorm&) = delete;
  ~SignalStorm() {
    const itimerval never = {};
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGALRM, &before_, nullptr);
  }

 private:
  struct sigaction before_;
};

}  // namespace ipc::pipe

#endif  // TESTS_IPC_PIPE_SIGNAL_STORM_H_
