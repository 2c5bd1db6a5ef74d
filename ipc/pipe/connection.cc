#include "ipc/pipe/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/copy.h"
#include "ipc/base/posix_error.h"
#include "ipc/pipe/fd_passing.h"
#include "ipc/pipe/sender_life.h"

namespace ipc::pipe {
namespace {

// A message of no more is copied behind its header.
constexpr size_t kCopiedBytes = 4096;

// A message of a batch of no more is copied next to those before it.
constexpr size_t kGatheredBytes = 1024;

// What goes by a first call of its own at least, of a message that goes by two.
constexpr size_t kFirstBytes = 2048;

// What FromFd learns about a descriptor.
struct Direction {
  StreamKind kind;
  bool readable;
  bool writable;
};

absl::Span<const std::byte> BytesOf(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// With its header.
size_t FrameBytes(size_t payload_bytes) {
  return payload_bytes + (payload_bytes <= kMaxShortPayload
                              ? FrameHeader::kShortSize
                              : FrameHeader::kLongSize);
}

absl::StatusOr<int> SocketOption(int fd, int option) {
  int value = 0;
  socklen_t size = sizeof(value);
  if (getsockopt(fd, SOL_SOCKET, option, &value, &size) != 0) {
    return PosixError(errno, absl::StrCat("getsockopt of fd ", fd));
  }
  return value;
}

absl::Status CheckSocket(int fd) {
  absl::StatusOr<int> type = SocketOption(fd, SO_TYPE);
  if (!type.ok()) return type.status();
  if (*type != SOCK_STREAM) {
    return absl::InvalidArgumentError(
        absl::StrCat("fd ", fd,
                     " is a socket, but not of type SOCK_STREAM, and a frame "
                     "would not fit its packets: create it as SOCK_STREAM"));
  }
  absl::StatusOr<int> listening = SocketOption(fd, SO_ACCEPTCONN);
  if (!listening.ok()) return listening.status();
  if (*listening != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "fd ", fd, " is a listening socket: pass one that accept returned"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Direction> Inspect(int fd) {
  struct stat stat;
  if (fstat(fd, &stat) != 0) {
    return PosixError(errno, absl::StrCat("fstat of fd ", fd));
  }
  if (S_ISSOCK(stat.st_mode)) {
    if (absl::Status status = CheckSocket(fd); !status.ok()) return status;
    return Direction{StreamKind::kSocket, true, true};
  }
  if (!S_ISFIFO(stat.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "fd ", fd,
        " is neither a pipe nor a socket: pass an end of a pipe, a "
        "FIFO or a stream socket"));
  }
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return PosixError(errno, absl::StrCat("F_GETFL of fd ", fd));
  if ((flags & (O_DIRECT | O_PATH)) != 0) {
    // Reading the four bytes of a header from a packet drops its rest.
    return absl::InvalidArgumentError(
        absl::StrCat("fd ", fd,
                     " is a pipe in packet mode (O_DIRECT) or only a path "
                     "(O_PATH): open it without"));
  }
  const int mode = flags & O_ACCMODE;
  return Direction{StreamKind::kPipe, mode != O_WRONLY, mode != O_RDONLY};
}

// How much the kernel holds of what was sent.
struct BufferSizes {
  size_t usual;  // about, if nobody has asked for more
  size_t largest;
};

constexpr BufferSizes SizesOf(StreamKind kind) {
  // A socket of more is not faster. The pipes of a user share 64 MiB, beyond
  // which new ones get two pages: so they are not asked for as much.
  return kind == StreamKind::kPipe
             ? BufferSizes{.usual = 64 << 10, .largest = 256 << 10}
             : BufferSizes{.usual = 200 << 10, .largest = 1 << 20};
}

// How much of a message goes by a first call, of its own; 0: all goes by one.
//
// A call fills pages from their beginnings, but for what is over of whole
// pages, its tail, which comes first, behind what is there if it fits. So this
// decides where in its page a byte lies in the kernel, and with that how fast
// it is copied there and from there (see ipc/base/copy.h). Behind a header
// nothing is aligned; in a pipe, what is sent from the beginning of a page is
// copied slowly, and so is what is received to 16 bytes behind that, where
// malloc has large blocks begin. 2 KiB further on all is well, whatever the
// peer's memory is: if the first call is longer than the tail of all, so that
// the second one's does not fit behind it. An empty pipe takes no more pages
// for two calls then.
//
// On a shared CPU the peer wakes up between the two calls, which costs up to a
// tenth, unless the message is so large that it does so anyway.
size_t FirstBytes(StreamKind kind, absl::Span<const std::byte> message,
                  size_t header_size) {
  constexpr size_t kPage = 4096;
  constexpr size_t kLine = 64;
  const uintptr_t place = PlaceOf(message.data());
  if (message.size() <= SizesOf(kind).usual &&
      !(kind == StreamKind::kPipe && IsSlowCopy(header_size, place))) {
    return 0;
  }
  const size_t tail = (header_size + message.size()) % kPage;
  if (tail == 0 || tail > kPage - 4 * kLine) return 0;  // it would not be well
  const size_t first =
      std::max(kFirstBytes, (tail + kLine - 1) / kLine * kLine);
  return IsSlowCopy(0, place + first) ? first + kLine : first;
}

}  // namespace

Connection::Connection(UniqueFd fd, StreamKind kind, bool readable,
                       bool writable, const Options& options)
    : fd_(std::move(fd)),
      kind_(kind),
      readable_(readable),
      writable_(writable),
      max_message_bytes_(options.max_message_bytes),
      watch_sender_(options.watch_sender),
      decoder_(options.max_message_bytes),
      frame_timeout_(options.frame_timeout),
      read_ahead_(options.read_ahead),
      takes_next_(readable && !options.watch_sender &&
                  (options.read_ahead ||
                   options.frame_timeout == absl::InfiniteDuration())),
      buffer_bytes_(SizesOf(kind).usual) {
  if (watch_sender_ && kind_ == StreamKind::kSocket) {
    // If it is refused, as by TCP, no sender will be known.
    const int on = 1;
    setsockopt(fd_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
  }
  if (options.buffer_bytes != 0) {
    SetBuffer(stream(), options.buffer_bytes);
    buffer_bytes_ = SIZE_MAX;
  }
}

absl::StatusOr<std::pair<Connection, Connection>> Connection::CreatePair(
    bool duplex, const Options& options) {
  int fds[2];
  const int result =
      duplex ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)
             : pipe2(fds, O_CLOEXEC);
  if (result != 0) {
    return PosixError(
        errno, duplex ? "creating a pair of sockets" : "creating a pipe");
  }
  const StreamKind kind = duplex ? StreamKind::kSocket : StreamKind::kPipe;
  return std::pair(Connection(UniqueFd(fds[0]), kind, true, duplex, options),
                   Connection(UniqueFd(fds[1]), kind, duplex, true, options));
}

absl::StatusOr<Connection> Connection::FromFd(UniqueFd fd,
                                              const Options& options) {
  absl::StatusOr<Direction> end = Inspect(fd.get());
  if (!end.ok()) return end.status();
  if (fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) {
    return PosixError(errno,
                      absl::StrCat("setting close-on-exec of fd ", fd.get()));
  }
  return Connection(std::move(fd), end->kind, end->readable, end->writable,
                    options);
}

std::string Connection::Name() const {
  return absl::StrCat(kind_ == StreamKind::kPipe ? "pipe" : "socket", " fd ",
                      fd_.get());
}

absl::Status Connection::ReceiveRefusal() const {
  if (!fd_.ok()) {
    return absl::FailedPreconditionError(
        "receiving on a connection that is closed or moved from");
  }
  return absl::PermissionDeniedError(absl::StrCat(
      Name(),
      " can only send: receive on the other end, or create the pair duplex"));
}

absl::Status Connection::SendRefusal() const {
  if (!fd_.ok()) {
    return absl::FailedPreconditionError(
        "sending on a connection that is closed or moved from");
  }
  if (!writable_) {
    return absl::PermissionDeniedError(absl::StrCat(
        Name(),
        " can only receive: send on the other end, or create the pair "
        "duplex"));
  }
  if (is_shut_) {
    return absl::FailedPreconditionError(absl::StrCat(
        "sending on ", Name(),
        " after ShutdownSend: it can only receive now; open a new one"));
  }
  return send_status_;
}

absl::Status Connection::TooLarge(size_t bytes) const {
  return absl::ResourceExhaustedError(absl::StrCat(
      "sending on ", Name(), ": a message of ", bytes,
      " bytes exceeds the limit of ", max_message_bytes_,
      " bytes: raise max_message_bytes on both ends, or send less"));
}

absl::Status Connection::Send(absl::string_view message,
                              absl::Duration timeout) {
  return Send(BytesOf(message), timeout);
}

absl::Status Connection::Send(absl::Span<const std::byte> message,
                              absl::Duration timeout) {
  if (message.size() > max_message_bytes_) return TooLarge(message.size());
  if (message.size() > kCopiedBytes) return SendLarge(message, timeout);
  // The kernel is faster with one part than with two, and a call that does it
  // all is faster than a loop.
  alignas(64) std::byte bytes[FrameHeader::kShortSize + kCopiedBytes];
  const FrameHeader header = EncodeFrameHeader(message.size());
  const size_t header_size = header.bytes().size();
  std::memcpy(bytes, header.bytes().data(), header_size);
  CopyBytes(bytes + header_size, message.data(), message.size());
  absl::Span<const std::byte> frame(bytes, header_size + message.size());
  size_t written = 0;
  if (timeout == absl::InfiniteDuration() && CanSend() &&
      IsOnePiece(frame.size(), 1)) {
    const ssize_t n = TryWrite(sending(), frame);
    if (n == static_cast<ssize_t>(frame.size())) return absl::OkStatus();
    if (n > 0) written = static_cast<size_t>(n);
    if (n < 0 && !MayGetFurther(errno)) {
      return SendError(PosixError(errno, "write"), 0, frame.size());
    }
  }
  iovec rest = PartOf(frame.subspan(written));
  return SendFrame(absl::MakeSpan(&rest, 1), timeout, 0, written);
}

absl::Status Connection::SendLarge(absl::Span<const std::byte> message,
                                   absl::Duration timeout) {
  const FrameHeader header = EncodeFrameHeader(message.size());
  const size_t header_size = header.bytes().size();
  // Who has a time limit may depend on what fits into a pipe that is not empty,
  // which can be a page less by two calls.
  const size_t first = timeout == absl::InfiniteDuration()
                           ? FirstBytes(kind_, message, header_size)
                           : 0;
  // A socket has less than a page of it next to the header; what would be
  // copied slowly to there is better copied before.
  const bool is_slow = kind_ == StreamKind::kSocket && first == 0 &&
                       IsSlowCopy(header_size, PlaceOf(message.data()));
  const size_t copied = is_slow ? kCopiedBytes : 0;
  alignas(64) std::byte start[FrameHeader::kLongSize + kCopiedBytes];
  std::memcpy(start, header.bytes().data(), header_size);
  CopyBytes(start + header_size, message.data(), copied);
  std::array<iovec, 3> parts = {PartOf({start, header_size + copied}),
                                PartOf(message.subspan(copied, first)),
                                PartOf(message.subspan(copied + first))};
  return SendFrame(absl::MakeSpan(parts), timeout, first == 0 ? 0 : 2);
}

absl::Status Connection::Send(const absl::Cord& message,
                              absl::Duration timeout) {
  if (message.size() > max_message_bytes_) return TooLarge(message.size());
  if (const auto flat = message.TryFlat()) return Send(*flat, timeout);
  if (message.size() <= kCopiedBytes) {
    return Send(absl::string_view(std::string(message)), timeout);
  }
  const FrameHeader header = EncodeFrameHeader(message.size());
  std::vector<iovec> parts = {PartOf(header.bytes())};
  for (const absl::string_view chunk : message.Chunks()) {
    parts.push_back(PartOf(BytesOf(chunk)));
  }
  return SendFrame(absl::MakeSpan(parts), timeout, 0);
}

void Connection::Grow(size_t bytes) {
  const size_t largest = SizesOf(kind_).largest;
  // The kernel's book-keeping counts, too, in a socket's.
  const size_t more = kind_ == StreamKind::kSocket ? bytes / 16 : 0;
  SetBuffer(stream(), std::min(bytes + more, largest));
  // Whether or not that was granted: it would not be the next time either.
  buffer_bytes_ = bytes < largest ? bytes : SIZE_MAX;
}

bool Connection::IsOnePiece(size_t bytes, size_t parts) const {
  return !watch_sender_ || kind_ != StreamKind::kPipe ||
         (bytes <= PIPE_BUF && parts <= kPartsInOnePiece);
}

absl::Status Connection::WriteFrames(absl::Span<iovec> parts, size_t total,
                                     size_t first_parts, Deadline deadline,
                                     size_t* written) {
  *written = 0;
  UniqueFd lock;
  if (!IsOnePiece(total, parts.size())) {
    absl::StatusOr<UniqueFd> locked = LockWhileSending(fd_.get());
    if (!locked.ok()) return locked.status();
    lock = *std::move(locked);
  }
  absl::Status status =
      WriteAll(sending(), parts.first(first_parts), deadline, written);
  if (!status.ok()) return status;
  size_t rest = 0;
  status = WriteAll(sending(), parts.subspan(first_parts), deadline, &rest);
  *written += rest;
  return status;
}

absl::Status Connection::SendFrame(absl::Span<iovec> parts,
                                   absl::Duration timeout, size_t first_parts,
                                   size_t before) {
  if (!CanSend()) return SendRefusal();
  size_t total = 0;
  for (const iovec& part : parts) total += part.iov_len;
  if (total > buffer_bytes_) Grow(total);
  size_t written = 0;
  const absl::Status status = WriteFrames(parts, total, first_parts,
                                          Deadline::After(timeout), &written);
  return status.ok() ? status
                     : SendError(status, before + written, before + total);
}

absl::Status Connection::SendError(const absl::Status& status, size_t written,
                                   size_t total) {
  const std::string context = absl::StrCat("sending on ", Name());
  if (written == 0) return Annotate(status, context);
  // The peer would take the next frame for the rest of this one.
  const std::string what =
      absl::StrCat(context, ": only ", written, " of the ", total,
                   " bytes of a frame were written (", status.message(), ")");
  const std::string way_out =
      "; nothing can be sent any more: close the connection and open a new one";
  // A peer that has gone stays the reason, however often it is asked for.
  const bool gone = absl::IsUnavailable(status);
  send_status_ = absl::Status(gone ? absl::StatusCode::kUnavailable
                                   : absl::StatusCode::kFailedPrecondition,
                              absl::StrCat(what, " earlier", way_out));
  return absl::Status(status.code(), absl::StrCat(what, way_out));
}

absl::StatusOr<size_t> Connection::SendBatch(
    absl::Span<const absl::string_view> messages, absl::Duration timeout) {
  if (!CanSend()) return SendRefusal();
  const auto is_small = [](absl::string_view message) {
    return message.size() <= kGatheredBytes;
  };
  size_t bytes = 0;
  size_t gathered_bytes = 0;
  size_t large = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    const size_t size = messages[i].size();
    if (size > max_message_bytes_) {
      return Annotate(TooLarge(size),
                      absl::StrCat("message ", i, " of a batch"));
    }
    bytes += FrameBytes(size);
    gathered_bytes += FrameBytes(size) - (is_small(messages[i]) ? 0 : size);
    large += is_small(messages[i]) ? 0 : 1;
  }
  // To gather what is small takes less time than the kernel for a part.
  const std::unique_ptr<std::byte[]> gathered(new std::byte[gathered_bytes]);
  std::vector<iovec> parts;
  parts.reserve(2 * large + 1);
  std::byte* begin = gathered.get();
  std::byte* end = begin;
  for (const absl::string_view message : messages) {
    const FrameHeader header = EncodeFrameHeader(message.size());
    std::memcpy(end, header.bytes().data(), header.bytes().size());
    end += header.bytes().size();
    if (is_small(message)) {
      CopyBytes(end, message.data(), message.size());
      end += message.size();
      continue;
    }
    parts.push_back(PartOf({begin, static_cast<size_t>(end - begin)}));
    parts.push_back(PartOf(BytesOf(message)));
    begin = end;
  }
  parts.push_back(PartOf({begin, static_cast<size_t>(end - begin)}));
  size_t written = 0;
  const absl::Status status = WriteFrames(absl::MakeSpan(parts), bytes, 0,
                                          Deadline::After(timeout), &written);
  if (status.ok()) return messages.size();
  size_t sent = 0;
  size_t rest = written;
  for (; sent < messages.size(); ++sent) {
    const size_t total = FrameBytes(messages[sent].size());
    if (rest >= total) {
      rest -= total;
      continue;
    }
    if (rest > 0) {
      return Annotate(SendError(status, rest, total),
                      absl::StrCat("after ", sent, " messages of a batch"));
    }
    break;
  }
  if (sent > 0) return sent;
  return SendError(status, 0, 0);
}

absl::Status Connection::CheckUnixSocket(absl::string_view operation) const {
  if (kind_ == StreamKind::kSocket) {
    absl::StatusOr<int> domain = SocketOption(fd_.get(), SO_DOMAIN);
    if (!domain.ok()) return domain.status();
    if (*domain == AF_UNIX) return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      operation, " ", Name(), ", which is no unix socket: create the pair ",
      "duplex, or connect to a unix address"));
}

absl::Status Connection::SendFds(absl::Span<const int> fds,
                                 absl::Duration timeout) {
  if (!CanSend()) return SendRefusal();
  const std::string context = "sending descriptors on";
  if (absl::Status status = CheckUnixSocket(context); !status.ok()) {
    return status;
  }
  if (fds.empty() || fds.size() > kMaxFds) {
    return absl::InvalidArgumentError(
        absl::StrCat(context, " ", Name(), ": ", fds.size(),
                     " of them, where 1 to ", kMaxFds, " can be"));
  }
  return Annotate(SendFdsOn(stream(), fds, Deadline::After(timeout)), Name());
}

absl::StatusOr<std::vector<UniqueFd>> Connection::ReceiveFds(
    size_t max, absl::Duration timeout) {
  if (!CanReceive()) return ReceiveRefusal();
  const std::string context = "receiving descriptors on";
  if (absl::Status status = CheckUnixSocket(context); !status.ok()) {
    return status;
  }
  if (!decoder_.status().ok()) return Annotate(decoder_.status(), Name());
  const absl::Status first = absl::FailedPreconditionError(absl::StrCat(
      context, " ", Name(), ": a message comes first; it is kept: Receive it"));
  if (!decoder_.at_boundary() || !ahead_.empty()) return first;
  if (read_ahead_) {
    return absl::FailedPreconditionError(absl::StrCat(
        context, " ", Name(),
        ", which reads ahead and so may have dropped them: open it without "
        "read_ahead"));
  }
  absl::StatusOr<ReceivedFds> received =
      ReceiveFdsOn(stream(), max, Deadline::After(timeout));
  if (!received.ok()) return Annotate(received.status(), Name());
  if (received->fds.empty()) {
    decoder_.Space()[0] = received->byte;
    const absl::Status status = decoder_.Commit(1);
    return status.ok() ? first : status;
  }
  return std::move(received->fds);
}

absl::StatusOr<PeerCredentials> Connection::peer() const {
  if (!fd_.ok()) {
    return absl::FailedPreconditionError(
        "asking for the peer of a connection that is closed or moved from");
  }
  if (absl::Status status = CheckUnixSocket("asking for the peer of");
      !status.ok()) {
    return status;
  }
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return PosixError(errno, absl::StrCat("SO_PEERCRED of ", Name()));
  }
  return PeerCredentials{.pid = peer.pid, .uid = peer.uid, .gid = peer.gid};
}

absl::Status Connection::ShutdownSend() {
  if (!CanSend()) return SendRefusal();
  if (kind_ == StreamKind::kPipe) {
    return absl::FailedPreconditionError(absl::StrCat(
        Name(), " has one direction only: Close it to end the stream"));
  }
  if (shutdown(fd_.get(), SHUT_WR) != 0) {
    return PosixError(errno, absl::StrCat("shutdown of ", Name()));
  }
  is_shut_ = true;
  return absl::OkStatus();
}

void Connection::Close() { fd_.Reset(); }

absl::StatusOr<UniqueFd> Connection::Release() {
  if (!fd_.ok()) {
    return absl::FailedPreconditionError(
        "releasing a connection that is closed or moved from");
  }
  if (!decoder_.at_boundary() || !decoder_.status().ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("releasing ", Name(),
                     " inside a message that was received in part: "
                     "Receive it first"));
  }
  if (!ahead_.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("releasing ", Name(), ", from which ", ahead_.size(),
                     " bytes were read ahead: receive them first"));
  }
  if (!send_status_.ok()) return Annotate(send_status_, "releasing");
  return std::move(fd_);
}

}  // namespace ipc::pipe
