// Prints "reading", then what it reads from descriptor 3, until the end of
// that. Deaf to SIGTERM.
#include <signal.h>
#include <unistd.h>

int main() {
  signal(SIGTERM, SIG_IGN);
  if (write(1, "reading\n", 8) != 8) return 1;
  char buffer[4096];
  ssize_t n;
  while ((n = read(3, buffer, sizeof(buffer))) > 0) {
    if (write(1, buffer, n) != n) return 1;
  }
  return n == 0 ? 0 : 2;
}
