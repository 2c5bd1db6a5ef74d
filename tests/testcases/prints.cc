// prints OUT [ERR]: exactly these, with no newline added.
#include <stdio.h>

int main(int argc, char** argv) {
  if (argc > 1) fputs(argv[1], stdout);
  if (argc > 2) fputs(argv[2], stderr);
  return 0;
}
