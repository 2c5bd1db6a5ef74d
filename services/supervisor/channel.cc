#include "services/supervisor/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"
#include "ipc/mqueue/queue.h"
#include "ipc/shm/segment.h"

namespace parley::supervisor {
namespace {

using ::ipc::PosixError;
using ::ipc::UniqueFd;

// A new open file description of what `fd` refers to.
absl::StatusOr<UniqueFd> Reopen(int fd, int flags, const std::string& name) {
  UniqueFd opened(
      open(absl::StrCat("/proc/self/fd/", fd).c_str(), flags | O_CLOEXEC));
  if (!opened.ok()) {
    return PosixError(errno, absl::StrCat("opening channel \"", name, "\""));
  }
  return opened;
}

absl::Status WrongRole(const v1::ChannelSpec& spec, v1::Role role,
                       absl::string_view instead) {
  return absl::FailedPreconditionError(
      absl::StrCat("channel \"", spec.name(), "\" cannot be granted as ",
                   v1::Role_Name(role), ": grant ", instead));
}

absl::StatusOr<UniqueFd> CreateShm(const v1::ChannelSpec& spec) {
  absl::StatusOr<ipc::shm::Segment> segment =
      ipc::shm::Segment::CreateAnonymous(spec.shm().bytes());
  if (!segment.ok()) return segment.status();
  return Reopen(segment->fd(), O_RDWR, spec.name());
}

absl::StatusOr<UniqueFd> CreateMqueue(const v1::ChannelSpec& spec) {
  ipc::mqueue::Options options;
  if (spec.mqueue().slots() != 0) options.slots = spec.mqueue().slots();
  if (spec.mqueue().message_bytes() != 0) {
    options.message_bytes = spec.mqueue().message_bytes();
  }
  absl::StatusOr<ipc::mqueue::Queue> queue =
      ipc::mqueue::Queue::CreateAnonymous(options);
  if (!queue.ok()) return queue.status();
  return Reopen(queue->fd(), O_RDWR, spec.name());
}

}  // namespace

absl::StatusOr<Channel> Channel::Create(const v1::ChannelSpec& spec) {
  Channel channel(spec);
  absl::StatusOr<UniqueFd> object;
  switch (spec.kind_case()) {
    case v1::ChannelSpec::kPipe: {
      int ends[2];
      const int result =
          spec.pipe().duplex()
              ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)
              : pipe2(ends, O_CLOEXEC);
      if (result != 0) {
        return PosixError(
            errno, absl::StrCat("creating channel \"", spec.name(), "\""));
      }
      channel.read_end_.Reset(ends[0]);
      channel.write_end_.Reset(ends[1]);
      if (spec.pipe().duplex()) return channel;
      object = Reopen(channel.read_end_.get(), O_PATH, spec.name());
      break;
    }
    case v1::ChannelSpec::kShm:
      object = CreateShm(spec);
      break;
    case v1::ChannelSpec::kMqueue:
      object = CreateMqueue(spec);
      break;
    case v1::ChannelSpec::KIND_NOT_SET:
      object =
          absl::InvalidArgumentError("give it a kind: pipe, shm or mqueue");
  }
  if (!object.ok()) {
    return ipc::Annotate(object.status(), absl::StrCat("creating channel \"",
                                                       spec.name(), "\""));
  }
  channel.object_ = *std::move(object);
  return channel;
}

absl::StatusOr<UniqueFd> Channel::Open(const std::string& process,
                                       v1::Role role) {
  switch (spec_.kind_case()) {
    case v1::ChannelSpec::kPipe:
      if (spec_.pipe().duplex()) {
        if (role != v1::READ_WRITE) {
          return WrongRole(spec_, role, "READ_WRITE of a duplex pipe");
        }
        return OpenDuplexEnd(process);
      }
      if (role == v1::READ)
        return Reopen(object_.get(), O_RDONLY, spec_.name());
      if (role == v1::WRITE)
        return Reopen(object_.get(), O_WRONLY, spec_.name());
      return WrongRole(spec_, role, "READ or WRITE, or make the pipe duplex");
    default:
      if (role == v1::ROLE_UNSPECIFIED) {
        return WrongRole(spec_, role, "READ, WRITE or READ_WRITE");
      }
      // A reader writes too: it marks itself as waiting, and messages as taken.
      return Reopen(object_.get(), O_RDWR, spec_.name());
  }
}

absl::StatusOr<UniqueFd> Channel::OpenDuplexEnd(const std::string& process) {
  const auto [holder, is_new] = duplex_holders_.try_emplace(
      process, static_cast<int>(duplex_holders_.size()));
  if (holder->second > 1) {
    duplex_holders_.erase(holder);
    return absl::FailedPreconditionError(absl::StrCat(
        "duplex pipe \"", spec_.name(),
        "\" has two ends, and both are granted "
        "to other processes than ",
        process, ": give every pair of processes a pipe of its own"));
  }
  const UniqueFd& end = holder->second == 0 ? read_end_ : write_end_;
  if (!end.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the end of duplex pipe \"", spec_.name(), "\" that ", process,
        " had is closed: unlike a one-way pipe, it cannot be opened again"));
  }
  return end.Duplicate();
}

void Channel::Release(v1::Role role) {
  if (spec_.kind_case() != v1::ChannelSpec::kPipe) return;
  (role == v1::READ ? read_end_ : write_end_).Reset();
}

}  // namespace parley::supervisor
