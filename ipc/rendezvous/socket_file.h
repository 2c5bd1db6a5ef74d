// The file of a unix socket that one listens on, whoever is killed and
// wherever: it is there only while somebody listens on it, or until the next
// one does, who can tell by a lock, and without connecting to it, that nobody
// does any more.
//
//   PATH       the socket; put there when it accepts connections, and not over
//              what is there already
//   PATH.lock  locked by flock(2) for as long as somebody listens; says which
//              inode is his socket
//   PATH.new   the socket while it is being made
//
// A socket that a dead process has left is removed if the lock file, which
// nobody has locked, names it. Anything else at PATH, such as the socket of a
// program that keeps no lock, is left alone.
//
// Thread safety: as a plain value. Fork: a child inherits the lock with the
// listening socket; only the process that made it removes the files.
#ifndef IPC_RENDEZVOUS_SOCKET_FILE_H_
#define IPC_RENDEZVOUS_SOCKET_FILE_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/base/unique_fd.h"

namespace ipc::rendezvous::internal {

class SocketFile {
 public:
  // Binds `socket` to PATH.new and lets it listen, then publishes it at `path`,
  // with `mode`. AlreadyExists if another process listens there, or something
  // else is there; PermissionDenied if a file of another user is in the way.
  static absl::StatusOr<SocketFile> Listen(int socket, absl::string_view path,
                                           mode_t mode, int backlog);

  SocketFile(SocketFile&& other) noexcept;
  SocketFile& operator=(SocketFile&&) = delete;
  // Removes the files.
  ~SocketFile();

 private:
  struct Identity {
    dev_t device = 0;
    ino_t inode = 0;
    friend bool operator==(const Identity&, const Identity&) = default;
  };

  SocketFile(absl::string_view path, UniqueFd lock);

  std::string NewPath() const { return path_ + ".new"; }
  static std::string LockPath(absl::string_view path);
  static absl::StatusOr<UniqueFd> Lock(absl::string_view path);
  static bool IsSocket(const std::string& path, Identity* identity);
  absl::Status RemoveStale();
  absl::Status Publish(int socket, mode_t mode, int backlog);

  std::string path_;
  UniqueFd lock_;
  pid_t owner_;
  Identity identity_;  // of our socket, or none yet
};

}  // namespace ipc::rendezvous::internal

#endif  // IPC_RENDEZVOUS_SOCKET_FILE_H_
