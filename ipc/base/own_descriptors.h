// Opening and closing files without touching the caller's record locks.
//
// Whoever closes any descriptor of a file drops all locks that the process has
// on it by F_SETLK (fcntl(2), "Advisory record locking"), even if that
// descriptor had nothing to do with them. So a library that looks at files
// which are not its own must not do it as that process: here it does so with a
// table of descriptors of its own, to which such locks belong.
//
//   absl::Status status = RunWithOwnDescriptors([&] {
//     UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
//     ... look at it ...
//   });
//
// OFD locks (F_OFD_SETLK) and those of flock(2) do not need it.
#ifndef IPC_BASE_OWN_DESCRIPTORS_H_
#define IPC_BASE_OWN_DESCRIPTORS_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace ipc {

// Runs `body` on a thread that ends with it, handles no signals, and has none
// of the descriptors of the process but 0 to 2. What it opens it has to close.
// It must not throw. ResourceExhausted if there can be no more threads; needs
// Linux 5.9.
absl::Status RunWithOwnDescriptors(absl::FunctionRef<void()> body);

}  // namespace ipc

#endif  // IPC_BASE_OWN_DESCRIPTORS_H_
