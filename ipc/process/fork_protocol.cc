#include "ipc/process/fork_protocol.h"

#include <cstring>

#include "ipc/base/posix_error.h"

namespace ipc::process {

ssize_t SendForkPacket(int control, absl::Span<iovec> bytes,
                       absl::Span<const int> fds, int flags) {
  alignas(cmsghdr) char space[CMSG_SPACE((kMaxForkFds + 1) * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = bytes.data();
  message.msg_iovlen = bytes.size();
  if (!fds.empty()) {
    message.msg_control = space;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(part), fds.data(), fds.size() * sizeof(int));
  }
  return RetryOnEintr(
      [&] { return sendmsg(control, &message, MSG_NOSIGNAL | flags); });
}

}  // namespace ipc::process
