// The file of a unix socket that one listens on, whoever is killed and
// wherever: it is there only while somebody listens on it, or until the next
// one does, who can tell by a lock, and without connecting to it, that nobody
// does any more.
//
//   PATH       the socket; put there when it accepts connections, and not over
//              what is there already
//   PATH.lock  locked by flock(2) for as long as somebody listens; says which
//              inode is his socket, and since when
//   PATH.new   the socket while it is being made
//
// A socket that a dead process has left is removed if the lock file, which
// nobody has locked, names it. Anything else at PATH, such as the socket of a
// program that keeps no lock, is left alone. A number alone would not name it:
// it is soon another file's. The time is that of the last modification, which
// for a socket is when it was made: neither renaming nor chmod nor use change
// it.
//
// Thread safety: as a plain value. Fork: the lock is among the PrivateFds, so
// no child holds it; only the process that made it removes the files.
#ifndef IPC_RENDEZVOUS_SOCKET_FILE_H_
#define IPC_RENDEZVOUS_SOCKET_FILE_H_

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/base/private_fds.h"

namespace ipc::rendezvous::internal {

class SocketFile {
 public:
  // Binds `socket` to PATH.new and lets it listen, then publishes it at `path`,
  // with `mode`. AlreadyExists if another process listens there, or something
  // else is there; PermissionDenied if a file of another user is in the way.
  // The lock is opened in `fds`, which has to outlive the SocketFile, and is
  // closed with it.
  static absl::StatusOr<SocketFile> Listen(int socket, absl::string_view path,
                                           mode_t mode, int backlog,
                                           PrivateFds& fds);

  SocketFile(SocketFile&& other) noexcept;
  SocketFile& operator=(SocketFile&&) = delete;
  // Removes the files.
  ~SocketFile();

 private:
  struct Identity {
    uint64_t device = 0;
    uint64_t inode = 0;
    int64_t seconds = 0;
    int64_t nanoseconds = 0;
    friend bool operator==(const Identity&, const Identity&) = default;
  };

  SocketFile(absl::string_view path, int lock, PrivateFds& fds);

  std::string NewPath() const { return path_ + ".new"; }
  static std::string LockPath(absl::string_view path);
  static absl::StatusOr<int> Lock(absl::string_view path, PrivateFds& fds);
  static Identity IdentityOf(const struct stat& stat);
  static bool IsSocket(const std::string& path, Identity* identity);
  absl::Status RemoveStale();
  // Finds out which file the socket has got, and sees to its mode.
  absl::Status Examine(mode_t mode);
  absl::Status Publish(int socket, mode_t mode, int backlog);

  std::string path_;
  PrivateFds* fds_;
  int lock_;  // of them; -1 in one that was moved from
  pid_t owner_;
  Identity identity_;  // of our socket, or none yet
};

}  // namespace ipc::rendezvous::internal

#endif  // IPC_RENDEZVOUS_SOCKET_FILE_H_
