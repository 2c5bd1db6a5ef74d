// Where a server's sockets and locks lie, for its user alone.
//
//   control.sock      the API, of gRPC            0600
//   control.lock      held by `parley serve`
//   supervisor.sock   the supervisor's protocol   0600
//   supervisor.lock   held by the supervisor
//   supervisor.log    what the supervisor prints
//
// Whether a socket is stale is known by its lock, which the kernel lets go of
// when the holder dies: never by connecting to it and guessing.
#ifndef SERVICES_CONTROL_RUNTIME_DIRECTORY_H_
#define SERVICES_CONTROL_RUNTIME_DIRECTORY_H_

#include <string>

#include "absl/status/statusor.h"
#include "ipc/base/unique_fd.h"

namespace parley::control {

// $XDG_RUNTIME_DIR/parley, or /tmp/parley-UID.
std::string DefaultRuntimeDirectory();

struct RuntimeDirectory {
  std::string path;

  std::string control_socket() const { return path + "/control.sock"; }
  std::string control_lock() const { return path + "/control.lock"; }
  std::string supervisor_socket() const { return path + "/supervisor.sock"; }
  std::string supervisor_lock() const { return path + "/supervisor.lock"; }
  std::string supervisor_log() const { return path + "/supervisor.log"; }

  // Makes it with mode 0700 unless it is there. PermissionDenied if it belongs
  // to somebody else or is open to others; InvalidArgument if it is so long
  // that a socket in it has no address.
  static absl::StatusOr<RuntimeDirectory> Open(const std::string& path);
};

// Takes the lock of a file, made if need be. Unavailable if somebody holds it.
// It is held until every copy of the descriptor is closed, those included that
// a child inherits.
absl::StatusOr<ipc::UniqueFd> TakeLock(const std::string& path);

// Replaces what is at `path` by a socket, with mode 0600, on which a supervisor
// can listen. Requires the lock that belongs to it.
absl::StatusOr<ipc::UniqueFd> ListenAt(const std::string& path);

// Restricts what this process creates to its user, for its own lifetime.
class PrivateUmask {
 public:
  PrivateUmask();
  ~PrivateUmask();
  PrivateUmask(const PrivateUmask&) = delete;
  PrivateUmask& operator=(const PrivateUmask&) = delete;

 private:
  unsigned before_;
};

}  // namespace parley::control

#endif  // SERVICES_CONTROL_RUNTIME_DIRECTORY_H_
