// Named shared memory, for processes of one user that share no descriptor:
// files in /dev/shm, as shm_open(3) and Python's SharedMemory have them.
//
//   absl::StatusOr<UniqueFd> fd = CreateUnnamedFile(size);
//   ... fill it ...
//   absl::Status status = PublishMemory(fd->get(), "scores");
//   // elsewhere:
//   absl::StatusOr<UniqueFd> same = OpenNamedMemory("scores");
//
// A file has no name before it is complete (O_TMPFILE and linkat(2)), so nobody
// ever opens half of one, and one killed while making it leaves nothing. Its
// memory is allocated when it is made: a full /dev/shm is an error there, not
// SIGBUS later. Its mode is 0600, and only a file of this user with no rights
// for others is opened.
//
// Unlike a memfd it cannot be sealed: another process of this user that shrinks
// it kills with SIGBUS whoever uses it then. Nobody but this user can.
//
// Names have 1 to 254 bytes, none of them a slash or zero; a leading slash, as
// shm_open(3) wants it, is ignored. "." and ".." are none.
#ifndef IPC_BASE_NAMED_MEMORY_H_
#define IPC_BASE_NAMED_MEMORY_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/base/memory.h"
#include "ipc/base/unique_fd.h"

namespace ipc {

// InvalidArgument if `name` is not one.
absl::Status CheckMemoryName(absl::string_view name);

// A file of `size` bytes, all zero, close-on-exec, that vanishes with its last
// descriptor unless it is published. ResourceExhausted if there is no room.
absl::StatusOr<UniqueFd> CreateUnnamedFile(size_t size);

// Names what CreateUnnamedFile has made. AlreadyExists if the name is taken.
absl::Status PublishMemory(int fd, absl::string_view name);

// Whether `fd` is memory that may have a name: its size is not sealed, as that
// of CreateMemory is.
bool IsNamedMemory(int fd);

// Allocates what another program has left out, such as one that called
// ftruncate only: touched later, it might be SIGBUS. ResourceExhausted if there
// is no room.
absl::Status AllocateFile(int fd, size_t size);

// Whether the file has a name, or it was removed.
bool HasName(int fd);

// The names in /dev/shm of all files that are this user's alone, and so
// OpenNamedMemory would open now. Opens none of them.
absl::StatusOr<std::vector<std::string>> ListNamedMemory();

// NotFound if there is none; PermissionDenied if it is another user's, others
// may access it, it is a symbolic link, or its mode does not allow `access`, by
// which the descriptor is limited; InvalidArgument if it is no file.
absl::StatusOr<UniqueFd> OpenNamedMemory(
    absl::string_view name,
    Mapping::Access access = Mapping::Access::kReadWrite);

// Removes the name; who has it open keeps it. NotFound if there is none.
absl::Status UnlinkNamedMemory(absl::string_view name);

// Removes the name if it leads to the file of `fd`, and returns whether it did.
// Never another one's, even if somebody gives it a new file meanwhile; that is
// then without its name for an instant. One that is killed in the midst of this
// leaves the file under another name, ".removed." and some numbers.
absl::StatusOr<bool> UnlinkIfSame(absl::string_view name, int fd);

}  // namespace ipc

#endif  // IPC_BASE_NAMED_MEMORY_H_
