// The supervisor's end of sd_notify(3): a socket for one process, so that what
// arrives is known to be about it, even if the sender has ended meanwhile.
//
// The name is abstract (unix(7)): it leaves no file behind, whoever is killed.
// Anybody may send to such a name, so the kernel attests each sender's user
// (SO_PASSCRED), and what other users send is ignored.
#ifndef SERVICES_SUPERVISOR_NOTIFY_SOCKET_H_
#define SERVICES_SUPERVISOR_NOTIFY_SOCKET_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "ipc/base/unique_fd.h"

namespace parley::supervisor {

// One datagram, decoded. See sd_notify(3).
struct Notification {
  bool ready = false;
  bool stopping = false;
  std::optional<std::string> status;
};

class NotifySocket {
 public:
  NotifySocket() = default;
  static absl::StatusOr<NotifySocket> Create();

  // For NOTIFY_SOCKET: "@" and the abstract name.
  const std::string& name() const { return name_; }
  int fd() const { return fd_.get(); }
  bool ok() const { return fd_.ok(); }

  // The next one that has arrived; nullopt if there is none.
  std::optional<Notification> Receive();

 private:
  ipc::UniqueFd fd_;
  std::string name_;
};

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_NOTIFY_SOCKET_H_
