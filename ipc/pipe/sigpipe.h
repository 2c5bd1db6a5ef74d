// SigpipeGuard lets one thread write to a pipe without dying of SIGPIPE and
// without touching what the program has decided about that signal: libraries
// have no business in sigaction, which is the whole process's.
//
// Example:
//
//   SigpipeGuard guard;
//   n = write(fd, data, size);
//   if (n < 0 ? errno == EPIPE : n < size) guard.Consume();
//
// Needed for pipes only, and only where the kernel has no RWF_NOSIGNAL: sockets
// have MSG_NOSIGNAL.
//
// Why it works. The SIGPIPE of a write is directed at the writing thread, so it
// is enough to block it there: it becomes pending instead of being delivered,
// and sigtimedwait takes it away, preferring the thread's own to one that was
// sent to the whole process. Two cases must be told apart if it was blocked
// before: if a SIGPIPE is pending already, ours merges into that one, which is
// not ours to take. If it was not blocked before, none can be pending, as it
// would have been delivered: so the common case needs no look.
//
// Cost: two system calls (block, restore), none of them if it was blocked
// before and is not pending: then one or two to find out.
//
// Thread safety: lives on the stack of the thread that writes.
#ifndef IPC_PIPE_SIGPIPE_H_
#define IPC_PIPE_SIGPIPE_H_

#include <signal.h>

namespace ipc::pipe {

class SigpipeGuard {
 public:
  SigpipeGuard();
  SigpipeGuard(const SigpipeGuard&) = delete;
  SigpipeGuard& operator=(const SigpipeGuard&) = delete;
  // Restores the signal mask. Leaves errno as it was.
  ~SigpipeGuard();

  // After a write that failed with EPIPE, or wrote less than it was to, in the
  // middle of which the last reader may have gone: takes away the SIGPIPE that
  // it caused, if it did. Leaves errno as it was.
  void Consume() const;

 private:
  bool was_blocked_;
  bool was_pending_ = false;
};

}  // namespace ipc::pipe

#endif  // IPC_PIPE_SIGPIPE_H_
