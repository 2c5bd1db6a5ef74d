// Prints "deaf", and can only be killed.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main() {
  signal(SIGTERM, SIG_IGN);
  puts("deaf");
  fflush(stdout);
  while (true) pause();
}
