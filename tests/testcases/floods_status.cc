// floods_status COUNT: tells the supervisor "STATUS=same" that many times, then
// "STATUS=1" to "STATUS=COUNT"; prints "told" and waits for a signal to end it.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char** argv) {
  const char* name = getenv("NOTIFY_SOCKET");
  if (argc != 2 || name == nullptr || name[0] != '@') return 64;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path + 1, name + 1, sizeof(address.sun_path) - 2);
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address),
              offsetof(sockaddr_un, sun_path) + strlen(name)) != 0) {
    return 1;
  }
  const int count = atoi(argv[1]);
  char status[64];
  for (int i = 0; i < count; ++i) {
    if (send(fd, "STATUS=same", 11, 0) < 0) return 1;
  }
  for (int i = 1; i <= count; ++i) {
    const int size = snprintf(status, sizeof(status), "STATUS=%d", i);
    if (send(fd, status, size, 0) < 0) return 1;
  }
  puts("told");
  fflush(stdout);
  while (true) pause();
}
