#include "ipc/pipe/upgrade.h"

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "ipc/base/unique_fd.h"

namespace ipc::pipe {

absl::StatusOr<RingSender> UpgradeToSender(Connection& connection,
                                           const RingOptions& options,
                                           absl::Duration timeout) {
  absl::StatusOr<RingSender> sender = RingSender::CreateAnonymous(options);
  if (!sender.ok()) return sender;
  if (absl::Status status = connection.SendFds({sender->fd()}, timeout);
      !status.ok()) {
    return status;
  }
  return sender;
}

absl::StatusOr<RingReceiver> UpgradeToReceiver(Connection& connection,
                                               absl::Duration timeout) {
  absl::StatusOr<std::vector<UniqueFd>> fds =
      connection.ReceiveFds(/*max=*/1, timeout);
  if (!fds.ok()) return fds.status();
  return RingReceiver::FromFd(std::move(fds->front()));
}

}  // namespace ipc::pipe
