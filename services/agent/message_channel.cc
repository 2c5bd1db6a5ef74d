#include "services/agent/message_channel.h"

#include <errno.h>
#include <poll.h>
#include <sys/stat.h>

#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ipc/base/memory.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"

namespace parley::agent {
namespace {

absl::StatusOr<bool> IsPipe(int fd) {
  struct stat stat;
  if (fstat(fd, &stat) != 0) {
    return ipc::PosixError(errno, absl::StrCat("fstat of fd ", fd));
  }
  return S_ISFIFO(stat.st_mode) || S_ISSOCK(stat.st_mode);
}

// Calls `attempt` in slices until it does something else than run out of time,
// or the agent is asked to stop.
template <typename Attempt>
auto UntilStopped(const Agent& agent, Attempt attempt)
    -> decltype(attempt(absl::Duration())) {
  while (!agent.stop_requested()) {
    auto result = attempt(kStopCheckInterval);
    absl::Status status;
    if constexpr (std::is_same_v<decltype(result), absl::Status>) {
      status = result;
    } else {
      status = result.status();
    }
    if (!absl::IsDeadlineExceeded(status)) return result;
  }
  return absl::CancelledError("asked to stop");
}

}  // namespace

absl::StatusOr<MessageChannel> MessageChannel::Adopt(Agent& agent,
                                                     absl::string_view name) {
  absl::StatusOr<ipc::UniqueFd> fd = agent.TakeFd(name);
  if (!fd.ok()) return fd.status();
  const std::string shown = name.empty()
                                ? "the granted channel"
                                : absl::StrCat("channel \"", name, "\"");
  absl::StatusOr<bool> is_pipe = IsPipe(fd->get());
  if (!is_pipe.ok()) return ipc::Annotate(is_pipe.status(), shown);
  if (*is_pipe) {
    auto connection = ipc::pipe::Connection::FromFd(*std::move(fd));
    if (!connection.ok()) return ipc::Annotate(connection.status(), shown);
    return MessageChannel(shown, *std::move(connection));
  }
  absl::StatusOr<ipc::SegmentPrefix> prefix = ipc::ReadSegmentPrefix(fd->get());
  if (!prefix.ok() || prefix->kind != ipc::SegmentKind::kMqueue) {
    return absl::FailedPreconditionError(absl::StrCat(
        shown,
        " is shared memory, which carries no messages: make it a pipe "
        "or an mqueue in the scenario"));
  }
  auto queue = ipc::mqueue::Queue::FromFd(*std::move(fd));
  if (!queue.ok()) return ipc::Annotate(queue.status(), shown);
  return MessageChannel(shown, *std::move(queue));
}

absl::Status MessageChannel::Send(absl::string_view message,
                                  const Agent& agent) {
  return ipc::Annotate(
      std::visit(
          [&](auto& channel) -> absl::Status {
            using Channel = std::decay_t<decltype(channel)>;
            if constexpr (std::is_same_v<Channel, ipc::pipe::Connection>) {
              // Not Send in slices: one that runs out of time in the middle of
              // a frame breaks the stream. What fits into a pipe that has room
              // (PIPE_BUF, 4096 bytes) is then sent without waiting; beyond,
              // it lasts until the reader goes on, or goes.
              return UntilStopped(agent, [&](absl::Duration slice) {
                pollfd room = {channel.fd(), POLLOUT, 0};
                if (poll(&room, 1, absl::ToInt64Milliseconds(slice)) <= 0) {
                  return absl::DeadlineExceededError("the channel is full");
                }
                return channel.Send(message);
              });
            } else {
              return UntilStopped(agent, [&](absl::Duration slice) {
                return channel.Send(message, slice);
              });
            }
          },
          kind_),
      absl::StrCat("sending over ", name_));
}

absl::StatusOr<std::string> MessageChannel::Receive(const Agent& agent) {
  absl::StatusOr<std::string> message = std::visit(
      [&](auto& channel) {
        return UntilStopped(agent, [&](absl::Duration slice) {
          return channel.Receive(slice);
        });
      },
      kind_);
  if (message.ok()) return message;
  return ipc::Annotate(message.status(),
                       absl::StrCat("receiving from ", name_));
}

absl::Status MessageChannel::CloseForSend() {
  if (auto* connection = std::get_if<ipc::pipe::Connection>(&kind_)) {
    connection->Close();
    return absl::OkStatus();
  }
  return std::get<ipc::mqueue::Queue>(kind_).CloseForSend();
}

}  // namespace parley::agent
