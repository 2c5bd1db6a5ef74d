// MessageChannel is a channel for messages, whichever kind was granted: a pipe
// or a message queue, told apart by the descriptor itself. So the scenario
// decides, and the service's code stays the same.
//
// Example:
//
//   auto channel = MessageChannel::Adopt(*agent, absl::GetFlag(FLAGS_channel));
//   absl::StatusOr<std::string> message = channel->Receive(agent);
//
// Thread safety: none.
#ifndef SERVICES_AGENT_MESSAGE_CHANNEL_H_
#define SERVICES_AGENT_MESSAGE_CHANNEL_H_

#include <string>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/mqueue/queue.h"
#include "ipc/pipe/connection.h"
#include "services/agent/agent.h"

namespace parley::agent {

class MessageChannel {
 public:
  // The channel granted as `name`; if that is empty, the only one.
  // FailedPrecondition if it carries no messages.
  static absl::StatusOr<MessageChannel> Adopt(Agent& agent,
                                              absl::string_view name);

  // Waits for room, or for a message, until the agent is asked to stop, which
  // gives Cancelled. OutOfRange at the end: every sender has closed, and all is
  // received. Other errors as of Connection and Queue, with the channel's name.
  absl::Status Send(absl::string_view message, const Agent& agent);
  absl::StatusOr<std::string> Receive(const Agent& agent);

  // No more messages: receivers see the end once they have received what was
  // sent. Of a pipe this ends the channel when the last sender closes; of a
  // queue, for all its senders at once.
  absl::Status CloseForSend();

 private:
  using Kind = std::variant<ipc::pipe::Connection, ipc::mqueue::Queue>;

  MessageChannel(std::string name, Kind kind)
      : name_(std::move(name)), kind_(std::move(kind)) {}

  std::string name_;  // for messages
  Kind kind_;
};

}  // namespace parley::agent

#endif  // SERVICES_AGENT_MESSAGE_CHANNEL_H_
