// Agent is a service's own side of being supervised: the channels it was
// granted, telling that it is ready, and being asked to stop.
//
// Example: the frame of a service.
//
//   absl::Status Run() {
//     absl::StatusOr<Agent> agent = Agent::Adopt();
//     if (!agent.ok()) return agent.status();
//     absl::StatusOr<ipc::UniqueFd> fd = agent->TakeFd("requests");
//     if (!fd.ok()) return fd.status();
//     …
//     if (absl::Status s = agent->Ready(); !s.ok()) return s;
//     while (!agent->stop_requested()) …
//     return agent->Stopping();
//   }
//
// It speaks systemd's conventions (sd_listen_fds(3), sd_notify(3), SIGTERM), so
// the same binary runs under systemd, and by hand with no channels at all.
//
// Thread safety: Adopt once, before there are threads. Afterwards TakeFd from
// one thread; all others from any.
#ifndef SERVICES_AGENT_AGENT_H_
#define SERVICES_AGENT_AGENT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ipc/base/unique_fd.h"
#include "services/agent/listen_fds.h"
#include "services/agent/notify.h"

namespace parley::agent {

// How long a service may take to notice that it was asked to stop: the slice in
// which it waits on its channels.
inline constexpr absl::Duration kStopCheckInterval = absl::Milliseconds(50);

class Agent {
 public:
  // Takes over what the supervisor handed down, and SIGTERM and SIGINT, which
  // from now on only set stop_requested(). They also interrupt system calls
  // (EINTR), but a signal may come just before a call begins: wait in slices

  static absl::StatusOr<Agent> Adopt();

  // The channel granted as `name`, or, if that is empty, the only one there
  // is. NotFound names the ones there are.
  absl::StatusOr<ipc::UniqueFd> TakeFd(absl::string_view name);

  // Tells the supervisor: ready to serve; what it is doing, for people; on its
  // way out.
  absl::Status Ready() const { return notifier_.Notify("READY=1"); }
  absl::Status SetStatus(absl::string_view text) const;
  absl::Status Stopping() const { return notifier_.Notify("STOPPING=1"); }

  // Whether SIGTERM or SIGINT has come. One load; may be asked per message.
  bool stop_requested() const;

 private:
  Agent(std::vector<NamedFd> fds, Notifier notifier)
      : fds_(std::move(fds)), notifier_(std::move(notifier)) {}

  std::vector<NamedFd> fds_;
  Notifier notifier_;
};

}  // namespace parley::agent

#endif  // SERVICES_AGENT_AGENT_H_
