// sleeps_forever [TEXT]: prints it, then waits for a signal to end it.
#include <stdio.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc > 1) puts(argv[1]);
  fflush(stdout);
  while (true) pause();
}
