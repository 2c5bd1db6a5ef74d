// prints_env NAME…: a line NAME=value for each.
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const char* value = getenv(argv[i]);
    printf("%s=%s\n", argv[i], value == nullptr ? "(unset)" : value);
  }
  return 0;
}
