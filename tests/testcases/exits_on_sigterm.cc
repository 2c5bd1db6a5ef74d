// Prints "up", and exits with 0 when it is asked to stop.
#include <signal.h>
#include <stdio.h>

int main() {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  puts("up");
  fflush(stdout);
  int signal;
  return sigwait(&stop, &signal);
}
