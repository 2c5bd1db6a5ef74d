// dies_of SIGNAL: prints "before", then kills itself by this number.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc != 2) return 64;
  puts("before");
  fflush(stdout);
  kill(getpid(), atoi(argv[1]));
  while (true) pause();
}
