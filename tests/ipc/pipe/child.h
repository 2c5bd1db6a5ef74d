// A real second process for tests of what only a second process shows.
//
// Example:
//
//   Child child = Child::Fork([&] { return connection.Send("x").ok() ? 0 : 1;
//   }); EXPECT_EQ(child.Wait(), 0);
#ifndef TESTS_IPC_PIPE_CHILD_H_
#define TESTS_IPC_PIPE_CHILD_H_

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <utility>

namespace ipc::pipe {

class Child {
 public:
  // Runs `body` in a child, whose exit status is what it returns. The child
  // dies with the test.
  static Child Fork(const std::function<int()>& body) {
    const pid_t pid = fork();
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      // _exit: the buffers and objects are copies of the parent's.
      _exit(body());
    }
    return Child(pid);
  }
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Child& operator=(Child&&) = delete;
  ~Child() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Wait();
    }
  }

  // The exit status, or minus the number of the signal that ended it.
  int Wait() {
    int status;
    while (waitpid(pid_, &status, 0) < 0) {
      if (errno != EINTR) return -1000;
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  pid_t pid() const { return pid_; }

 private:
  explicit Child(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

}  // namespace ipc::pipe

#endif  // TESTS_IPC_PIPE_CHILD_H_
