// Exits with 0 and leaves a descendant that holds its output open until
// descriptor 3 ends, and that is not known as its own: in a session of its own,
// with an empty environment.
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc > 1) {
    char byte;
    while (read(3, &byte, 1) > 0) {
    }
    return 0;
  }
  int executed[2];
  if (pipe2(executed, O_CLOEXEC) != 0) return 1;
  if (fork() == 0) {
    setsid();
    char hold[] = "hold";
    char* args[] = {argv[0], hold, nullptr};
    char* no_env[] = {nullptr};
    execve("/proc/self/exe", args, no_env);
    _exit(1);
  }
  // Not before it has left our process group: that dies with us.
  close(executed[1]);
  char byte;
  return read(executed[0], &byte, 1) == 0 ? 0 : 1;
}
