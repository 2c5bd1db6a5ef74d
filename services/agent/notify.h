// Tells the supervisor how a process is doing, by the protocol of sd_notify(3):
// one datagram to the unix socket that NOTIFY_SOCKET names.
#ifndef SERVICES_AGENT_NOTIFY_H_
#define SERVICES_AGENT_NOTIFY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/base/unique_fd.h"

namespace parley::agent {

// Thread-safe.
class Notifier {
 public:
  // From NOTIFY_SOCKET, which is removed from the environment. Without the
  // variable, nobody listens and every notification is OK without effect.
  static absl::StatusOr<Notifier> FromEnvironment();

  // Sends assignments, one a line: "READY=1", "STATUS=…", "STOPPING=1". Does
  // not block: a supervisor that is far behind gives ResourceExhausted.
  absl::Status Notify(absl::string_view assignments) const;

 private:
  Notifier() = default;

  ipc::UniqueFd socket_;  // connected; none if nobody listens
};

}  // namespace parley::agent

#endif  // SERVICES_AGENT_NOTIFY_H_
