// Leaves a descendant that does what it can to be forgotten: in a session of
// its own, without its parent, deaf to SIGTERM. Prints "grandchild PID" and
// waits for a signal to end it.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main() {
  int ready[2];
  if (pipe(ready) != 0) return 1;
  const pid_t child = fork();
  if (child == 0) {
    setsid();
    const pid_t grandchild = fork();
    if (grandchild != 0) {
      dprintf(ready[1], "%d", grandchild);
      _exit(0);
    }
    signal(SIGTERM, SIG_IGN);
    while (true) pause();
  }
  char pid[32] = {};
  if (read(ready[0], pid, sizeof(pid) - 1) <= 0) return 1;
  printf("grandchild %s\n", pid);
  fflush(stdout);
  while (true) pause();
}
