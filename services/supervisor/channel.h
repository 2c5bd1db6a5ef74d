// Channel is one channel of a session as the supervisor owns it: what it takes
// to hand an end of it to a process, now or later.
//
// A pipe ends, for its reader, when its last write end is closed, so the
// supervisor must not keep one open for longer than somebody is still to be
// given one. It closes its ends by Release and yet can open new ones: an
// anonymous pipe is also reachable by an O_PATH descriptor, which counts as
// neither reader nor writer (open(2), proc(5) on /proc/self/fd).
//
// Thread safety: none.
#ifndef SERVICES_SUPERVISOR_CHANNEL_H_
#define SERVICES_SUPERVISOR_CHANNEL_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "ipc/base/unique_fd.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {

class Channel {
 public:
  static absl::StatusOr<Channel> Create(const v1::ChannelSpec& spec);

  const v1::ChannelSpec& spec() const { return spec_; }

  // A descriptor for `process` to use the channel in `role`.
  // FailedPrecondition names a role that this kind of channel does not have.
  absl::StatusOr<ipc::UniqueFd> Open(const std::string& process, v1::Role role);

  // Closes the supervisor's own end for this role, READ or WRITE, of which no
  // process is still to be given one. The ends of a duplex pipe are alike: READ
  // means the one that is opened first, WRITE the other. No effect on shared
  // memory.
  void Release(v1::Role role);

 private:
  explicit Channel(const v1::ChannelSpec& spec) : spec_(spec) {}

  absl::StatusOr<ipc::UniqueFd> OpenDuplexEnd(const std::string& process);

  v1::ChannelSpec spec_;
  // shm, mqueue: the memory. One-way pipe: an O_PATH descriptor of it.
  ipc::UniqueFd object_;
  // One-way pipe: its ends. Duplex: the two sockets, in the order in which they
  // are opened.
  ipc::UniqueFd read_end_;
  ipc::UniqueFd write_end_;
  std::map<std::string, int> duplex_holders_;  // process -> which socket
};

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_CHANNEL_H_
