// Forked children for tests: `body` runs in the child, its result is the exit
// status. Destroyed, a child is killed and reaped.
#ifndef TESTS_IPC_MQUEUE_CHILD_PROCESS_H_
#define TESTS_IPC_MQUEUE_CHILD_PROCESS_H_

#include <sys/types.h>

#include <functional>

namespace ipc::mqueue {

class ChildProcess {
 public:
  explicit ChildProcess(const std::function<int()>& body);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  // Waits for the end: the exit status, or minus the signal.
  int Join();
  // SIGKILL, then Join.
  int Kill();
  // SIGSTOP, and waits until it has stopped.
  void Stop() const;
  void Continue() const;
  // Waits until the child, in its body, has stopped itself by StopSelf.
  void AwaitStop() const;

  // In the child: a point at which to be killed or continued.
  static void StopSelf();

 private:
  pid_t pid_ = -1;
};

}  // namespace ipc::mqueue

#endif  // TESTS_IPC_MQUEUE_CHILD_PROCESS_H_
