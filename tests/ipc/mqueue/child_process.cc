#include "tests/ipc/mqueue/child_process.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

namespace ipc::mqueue {

ChildProcess::ChildProcess(const std::function<int()>& body) : pid_(fork()) {
  if (pid_ == 0) _exit(body());
  if (pid_ < 0) abort();
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) Kill();
}

int ChildProcess::Join() {
  int status = 0;
  if (waitpid(std::exchange(pid_, -1), &status, 0) < 0) abort();
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int ChildProcess::Kill() {
  kill(pid_, SIGKILL);
  return Join();
}

void ChildProcess::Stop() const {
  kill(pid_, SIGSTOP);
  AwaitStop();
}

void ChildProcess::Continue() const { kill(pid_, SIGCONT); }

void ChildProcess::AwaitStop() const {
  int status = 0;
  if (waitpid(pid_, &status, WUNTRACED) != pid_ || !WIFSTOPPED(status)) {
    fprintf(stderr, "child %d ended instead of stopping: %x\n", pid_, status);
    abort();
  }
}

void ChildProcess::StopSelf() { kill(getpid(), SIGSTOP); }

}  // namespace ipc::mqueue
