#include "services/supervisor/link.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ipc/base/posix_error.h"

namespace parley::supervisor {
namespace {

// Of a request: a session of thousands of processes.
constexpr uint64_t kMaxRequestBytes = uint64_t{16} << 20;

}  // namespace

Link::Link(EventLoop& loop, ipc::UniqueFd fd, Callbacks callbacks)
    : loop_(loop),
      fd_(std::move(fd)),
      callbacks_(std::move(callbacks)),
      interest_(EPOLLIN),
      decoder_(kMaxRequestBytes) {
  watch_ = loop_.Watch(fd_.get(), interest_,
                       [this](uint32_t events) { OnEvents(events); });
}

Link::~Link() { loop_.Unwatch(watch_); }

void Link::Send(const v1::ServerMessage& message) {
  if (closed_ || deaf_) return;
  ipc::pipe::AppendFrame(message.SerializeAsString(), output_);
}

void Link::Flush() {
  while (!closed_ && queued() > 0) {
    const ssize_t n = ipc::RetryOnEintr([&] {
      return send(fd_.get(), output_.data() + sent_, queued(),
                  MSG_DONTWAIT | MSG_NOSIGNAL);
    });
    if (n < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) break;
      // Nobody reads (shutdown(2) with SHUT_RD, or closed), which polls as
      // writable for ever. Shut, our side of the socket ends with what has
      // arrived, so reading on comes to an end, which closes the link.
      deaf_ = true;
      output_.clear();
      sent_ = 0;
      shutdown(fd_.get(), SHUT_RD);
      break;
    }
    sent_ += n;
  }
  // Bytes sent are cut off when they are the larger part, so each is moved at
  // most once on average.
  if (sent_ > queued()) {
    output_.erase(0, sent_);
    sent_ = 0;
  }
  UpdateInterest();
}

void Link::UpdateInterest() {
  if (closed_) return;
  const uint32_t wanted =
      (is_slow() ? 0u : EPOLLIN) | (queued() > 0 ? EPOLLOUT : 0u);
  if (wanted == interest_) return;
  interest_ = wanted;
  loop_.Modify(watch_, interest_);
}

void Link::OnEvents(uint32_t events) {
  if (events & EPOLLOUT) {
    const bool was_slow = is_slow();
    Flush();
    if (was_slow && is_slow()) return;
    // May queue and flush more, but does not close.
    callbacks_.on_writable();
  }
  if (events & EPOLLIN) {
    Read();
  } else if (events & (EPOLLHUP | EPOLLERR)) {
    Close(absl::UnavailableError("the client has closed its connection"));
  }
}

void Link::Read() {
  std::byte buffer[16384];
  const ssize_t n = ipc::RetryOnEintr(
      [&] { return recv(fd_.get(), buffer, sizeof(buffer), MSG_DONTWAIT); });
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
  if (n < 0) {
    Close(ipc::PosixError(errno, "reading from a client"));
    return;
  }
  if (n == 0) {
    Close(decoder_.EndOfStream());
    return;
  }
  absl::Span<const std::byte> bytes(buffer, n);
  while (!closed_) {
    absl::StatusOr<std::optional<std::string>> frame = decoder_.Decode(bytes);
    if (!frame.ok()) {
      Close(frame.status());
      return;
    }
    if (!frame->has_value()) return;
    v1::ClientMessage message;
    if (!message.ParseFromString(**frame)) {
      Close(absl::InvalidArgumentError(
          "a client sent what is not a ClientMessage of supervisor.proto"));
      return;
    }
    callbacks_.on_message(message);
  }
}

void Link::Close(const absl::Status& reason) {
  if (closed_) return;
  closed_ = true;
  const auto on_close = callbacks_.on_close;
  on_close(reason);
}

}  // namespace parley::supervisor
