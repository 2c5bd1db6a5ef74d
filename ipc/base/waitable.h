// A Waitable is anything whose readiness shows on a file descriptor: the
// receiving end of a channel, or a process that may exit.
#ifndef IPC_BASE_WAITABLE_H_
#define IPC_BASE_WAITABLE_H_

namespace ipc {

class Waitable {
 public:
  virtual ~Waitable() = default;

  // A descriptor that polls readable (POLLIN) when there is something to do
  // without blocking, valid for as long as the object lives. For poll and epoll
  // only: reading from it takes away what the object is waiting for.
  virtual int poll_fd() const = 0;

  // Whether there is something that poll_fd() does not show, as the object has
  // it already.
  virtual bool is_ready() const { return false; }
};

}  // namespace ipc

#endif  // IPC_BASE_WAITABLE_H_
