// Whether the sender of a message that is here in part still lives, as the
// kernel proves it: what ConnectionOptions::watch_sender is made of.
//
// A unix socket with SO_PASSCRED tells which process sent what was read, and
// that may be asked whether it has exited.
//
// A pipe tells nothing. So a sender that is inside a message holds an OFD lock
// (F_OFD_SETLK in fcntl(2), which goes for pipes, too) on one byte of the pipe,
// the number of its thread, by an open file description of its own. The kernel
// drops it when the sender dies. As it is taken before the first byte is
// written and dropped after the last one, there is a part of a message and no
// lock only if nobody is going to write the rest.
//
// Thread safety: functions of their arguments.
#ifndef IPC_PIPE_SENDER_LIFE_H_
#define IPC_PIPE_SENDER_LIFE_H_

#include <sys/types.h>

#include "absl/status/statusor.h"
#include "ipc/base/unique_fd.h"

namespace ipc::pipe {

// Locks the pipe of which `fd` is a sending end, until what it returns is
// closed. Needs /proc, and the right to open the pipe: an error without.
// Unavailable if nobody can receive any more. A child that another thread forks
// meanwhile shares the lock until it calls exec or exits.
absl::StatusOr<UniqueFd> LockWhileSending(int fd);

// Whether anybody holds such a lock on the pipe of which `fd` is an end.
bool IsLockedForSending(int fd);

// Whether process `pid` has exited. If its number has been given to another one
// since, that one is meant.
bool HasExited(pid_t pid);

}  // namespace ipc::pipe

#endif  // IPC_PIPE_SENDER_LIFE_H_
