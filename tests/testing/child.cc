#include "tests/testing/child.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "ipc/base/posix_error.h"
#include "tests/testing/process_state.h"

namespace ipc::testing {
namespace {

void CheckThat(bool holds, const char* what) {
  if (holds) return;
  perror(what);
  abort();
}

// What `pid` does next, without reaping it.
siginfo_t Await(pid_t pid, int options) {
  siginfo_t info = {};
  CheckThat(RetryOnEintr([&] {
              return waitid(P_PID, pid, &info, options | WNOWAIT);
            }) == 0,
            "waitid");
  return info;
}

}  // namespace

bool Child::Side::Tell() const {
  return RetryOnEintr([&] { return send(fd_, "", 1, MSG_NOSIGNAL); }) == 1;
}

bool Child::Side::Hear() const {
  char byte;
  return RetryOnEintr([&] { return read(fd_, &byte, 1); }) == 1;
}

Child Child::Fork(const std::function<int(Side)>& body) {
  int fds[2];
  CheckThat(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0,
            "socketpair");
  UniqueFd ours(fds[0]);
  UniqueFd theirs(fds[1]);
  const pid_t pid = fork();
  CheckThat(pid >= 0, "fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ours.Reset();
    // _exit: the buffers and objects are copies of the parent's.
    _exit(body(Side(theirs.get())));
  }
  return Child(pid, std::move(ours));
}

Child Child::Fork(const std::function<int()>& body) {
  return Fork([&](Side) { return body(); });
}

Child& Child::operator=(Child&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(socket_, other.socket_);
  return *this;
}

Child::~Child() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  Wait();
}

void Child::StopSelf() { kill(getpid(), SIGSTOP); }

void Child::AwaitStop() const {
  CheckThat(Await(pid_, WSTOPPED | WEXITED).si_code == CLD_STOPPED,
            "the child has ended instead of stopping");
}

void Child::AwaitSleep() const {
  while (true) {
    const char state = testing::ProcessState(pid_);
    if (state == 'S') return;
    CheckThat(state != 'Z' && state != '?', "the child has ended");
    sched_yield();
  }
}

void Child::Stop() const {
  kill(pid_, SIGSTOP);
  AwaitStop();
}

void Child::Continue() const { kill(pid_, SIGCONT); }

void Child::Kill() const {
  kill(pid_, SIGKILL);
  Await(pid_, WEXITED);
}

int Child::Wait() {
  int status;
  CheckThat(RetryOnEintr([&] { return waitpid(pid_, &status, 0); }) == pid_,
            "waitpid");
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace ipc::testing
