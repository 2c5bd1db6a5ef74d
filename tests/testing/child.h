// A real second process for tests of what only a second process shows.
//
// Example:
//
//   Child child = Child::Fork([&](Child::Side side) {
//     auto guard = array.Lock();
//     side.Tell();      // the parent's Hear returns
//     side.Hear();      // until the parent's Tell
//     return guard.ok() ? 0 : 1;
//   });
//   ASSERT_TRUE(child.Hear());
#ifndef TESTS_TESTING_CHILD_H_
#define TESTS_TESTING_CHILD_H_

#include <sys/types.h>

#include <functional>
#include <utility>

#include "ipc/base/unique_fd.h"

namespace ipc::testing {

class Child {
 public:
  // How the child speaks to its parent: one byte a time.
  class Side {
   public:
    explicit Side(int fd) : fd_(fd) {}
    bool Tell() const;
    bool Hear() const;

   private:
    int fd_;
  };

  // Runs `body` in a child, whose exit status is what it returns. The child
  // dies with the test.
  static Child Fork(const std::function<int(Side)>& body);
  static Child Fork(const std::function<int()>& body);

  Child(Child&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)),
        socket_(std::move(other.socket_)) {}
  Child& operator=(Child&& other) noexcept;
  // SIGKILL, and reaps it.
  ~Child();

  pid_t pid() const { return pid_; }
  bool Tell() const { return Side(socket_.get()).Tell(); }
  // False if the child has exited instead.
  bool Hear() const { return Side(socket_.get()).Hear(); }

  // In the child: a point at which to be killed or continued.
  static void StopSelf();
  // Returns when the child has stopped itself.
  void AwaitStop() const;
  // Returns when the child sleeps in a system call.
  void AwaitSleep() const;
  // SIGSTOP; returns when the child has stopped.
  void Stop() const;
  void Continue() const;
  // SIGKILL; returns when the child is dead, though not when it is reaped.
  void Kill() const;
  // The exit status, or minus the number of the signal that ended it.
  int Wait();

 private:
  Child(pid_t pid, UniqueFd socket) : pid_(pid), socket_(std::move(socket)) {}

  pid_t pid_;
  UniqueFd socket_;
};

}  // namespace ipc::testing

#endif  // TESTS_TESTING_CHILD_H_
