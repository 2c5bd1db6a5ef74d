// How a Connection receives.
#include <errno.h>
#include <poll.h>

#include <algorithm>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ipc/base/copy.h"
#include "ipc/base/posix_error.h"
#include "ipc/pipe/connection.h"
#include "ipc/pipe/sender_life.h"

namespace ipc::pipe {
namespace {

// What is read of a larger message is not worth a copy.
constexpr size_t kLargeBytes = Connection::kBatchBytes / 4;

// Of a Cord that is received.
constexpr size_t kChunkBytes = size_t{1} << 20;
// Not where malloc would have it begin: see ipc/base/copy.h.
constexpr size_t kChunkAlignment = 64;
struct ChunkDeleter {
  void operator()(char* chunk) const {
    operator delete[](chunk, std::align_val_t(kChunkAlignment));
  }
};
using Chunk = std::unique_ptr<char[], ChunkDeleter>;

}  // namespace

absl::StatusOr<std::string> Connection::Receive(absl::Duration timeout) {
  if (const auto frame = TakeNext(max_message_bytes_, timeout)) {
    return std::string(reinterpret_cast<const char*>(frame->data()),
                       frame->size());
  }
  if (!CanReceive()) return ReceiveRefusal();
  const Deadline deadline = Deadline::After(timeout);
  absl::Status status = Prefetch(deadline);
  if (status.ok()) {
    if (const auto frame = TakeAhead(max_message_bytes_)) {
      return std::string(reinterpret_cast<const char*>(frame->data()),
                         frame->size());
    }
    status = ReadFrame(deadline);
  }
  if (!status.ok()) {
    return Annotate(status, absl::StrCat("receiving on ", Name()));
  }
  expects_large_ = *decoder_.payload_bytes() >= kLargeBytes;
  return decoder_.TakeFrame();
}

absl::StatusOr<absl::Cord> Connection::ReceiveCord(absl::Duration timeout) {
  if (const auto frame = TakeNext(max_message_bytes_, timeout)) {
    return absl::Cord(absl::string_view(
        reinterpret_cast<const char*>(frame->data()), frame->size()));
  }
  if (!CanReceive()) return ReceiveRefusal();
  const Deadline deadline = Deadline::After(timeout);
  absl::Status status = Prefetch(deadline);
  if (status.ok()) {
    if (const auto frame = TakeAhead(max_message_bytes_)) {
      return absl::Cord(absl::string_view(
          reinterpret_cast<const char*>(frame->data()), frame->size()));
    }
    status = ReadHeader(deadline);
  }
  absl::Cord message;
  if (status.ok()) {
    expects_large_ = *decoder_.payload_bytes() >= kLargeBytes;
    // What an earlier call began goes on as that had to leave it: in one piece.
    if (*decoder_.payload_bytes() > FrameDecoder::kFirstAllocationBytes &&
        decoder_.partial_payload().empty()) {
      status = ReadChunks(message, deadline);
    } else {
      status = ReadFrame(deadline);
      if (status.ok()) message = absl::Cord(decoder_.TakeFrame());
    }
  }
  if (!status.ok()) {
    return Annotate(status, absl::StrCat("receiving on ", Name()));
  }
  return message;
}

absl::Status Connection::ReadChunks(absl::Cord& message, Deadline deadline) {
  const uint64_t size = *decoder_.payload_bytes();
  while (message.size() < size) {
    const size_t bytes = std::min(
        size - message.size(),
        std::clamp<uint64_t>(message.size(),
                             FrameDecoder::kFirstAllocationBytes, kChunkBytes));
    Chunk chunk(static_cast<char*>(operator new[](
        bytes, std::align_val_t(kChunkAlignment), std::nothrow)));
    if (chunk == nullptr) return decoder_.NoMemory(bytes);
    size_t received = 0;
    absl::StatusOr<size_t> n = 1;
    while (received < bytes && n.ok() && *n > 0) {
      n = Read({reinterpret_cast<std::byte*>(chunk.get()) + received,
                bytes - received},
               deadline);
      if (n.ok()) received += *n;
    }
    const absl::string_view text(chunk.get(), received);
    message.Append(
        absl::MakeCordFromExternal(text, [chunk = std::move(chunk)] {}));
    if (received == bytes) continue;
    // To be gone on with by whichever call comes next.
    for (const absl::string_view part : message.Chunks()) {
      absl::Span<const std::byte> rest(
          reinterpret_cast<const std::byte*>(part.data()), part.size());
      decoder_.Decode(rest).IgnoreError();  // it is not complete
    }
    return n.ok() ? decoder_.EndOfStream() : n.status();
  }
  decoder_.SkipFrame();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> Connection::ReceiveBatch(
    absl::Duration timeout) {
  if (!CanReceive()) return ReceiveRefusal();
  const Deadline deadline = Deadline::After(timeout);
  const std::string context = absl::StrCat("receiving on ", Name());
  std::vector<std::string> messages;
  while (messages.empty()) {
    if (!decoder_.status().ok()) return Annotate(decoder_.status(), context);
    if (ahead_.empty()) {
      absl::Status status = ReadAhead(deadline);
      if (status.ok() && ahead_.empty()) status = decoder_.EndOfStream();
      if (!status.ok()) return Annotate(status, context);
    }
    while (true) {
      if (const auto whole = TakeAhead(max_message_bytes_)) {
        messages.emplace_back(reinterpret_cast<const char*>(whole->data()),
                              whole->size());
        continue;
      }
      if (decoder_.at_boundary()) frame_deadline_.reset();
      absl::StatusOr<std::optional<std::string>> frame =
          decoder_.Decode(ahead_);
      if (!frame.ok()) {
        // Those before it are whole; the next call tells.
        if (!messages.empty()) break;
        return Annotate(frame.status(), context);
      }
      if (!frame->has_value()) break;
      messages.push_back(**std::move(frame));
    }
  }
  return messages;
}

absl::StatusOr<size_t> Connection::ReceiveInto(absl::Span<std::byte> buffer,
                                               absl::Duration timeout) {
  if (const auto frame = TakeNext(buffer.size(), timeout)) {
    CopyBytes(buffer.data(), frame->data(), frame->size());
    return frame->size();
  }
  if (!CanReceive()) return ReceiveRefusal();
  const Deadline deadline = Deadline::After(timeout);
  absl::Status status = Prefetch(deadline);
  if (status.ok()) {
    if (const auto frame = TakeAhead(buffer.size())) {
      CopyBytes(buffer.data(), frame->data(), frame->size());
      return frame->size();
    }
    status = ReadHeader(deadline);
  }
  if (status.ok()) {
    const size_t size = *decoder_.payload_bytes();
    if (size > buffer.size()) {
      status = absl::InvalidArgumentError(
          absl::StrCat("a message of ", size,
                       " bytes does not fit a buffer of ", buffer.size(),
                       " bytes; it is kept: pass a larger buffer, or call "
                       "Receive"));
    } else {
      status = ReadPayload(buffer.first(size), deadline);
      if (status.ok()) {
        expects_large_ = size >= kLargeBytes;
        return size;
      }
    }
  }
  return Annotate(status, absl::StrCat("receiving on ", Name()));
}

inline std::optional<absl::Span<const std::byte>> Connection::TakeNext(
    size_t max_bytes, absl::Duration timeout) {
  // Who was moved from still has a view of what the other one read ahead.
  if (!fd_.ok()) return std::nullopt;
  if (ahead_.empty()) {
    if (!takes_next_ || expects_large_ || !decoder_.at_boundary() ||
        timeout != absl::InfiniteDuration() || !MakeBuffer()) {
      return std::nullopt;
    }
    if (read_ahead_) {
      TryReadAhead(kBatchBytes);
    } else if (TryReadAhead(FrameHeader::kShortSize)) {
      const std::optional<uint32_t> size = PayloadBytes(ahead_);
      if (size > uint32_t{0} &&
          size <= std::min({max_bytes, max_message_bytes_, kLargeBytes})) {
        TryReadAhead(*size);
      }
    }
  }
  return TakeAhead(max_bytes);
}

inline bool Connection::TryReadAhead(size_t bytes) {
  const size_t before = ahead_.size();
  const ssize_t n = TryRead(receiving(), {buffer_->bytes + before, bytes});
  if (n <= 0) [[unlikely]] {
    early_ = n == 0 ? 0 : -errno;
    return false;
  }
  ahead_ = {buffer_->bytes, before + static_cast<size_t>(n)};
  return true;
}

inline bool Connection::MakeBuffer() {
  // Not value-initialized: that would fill it with zeros.
  if (buffer_ == nullptr) buffer_.reset(new (std::nothrow) Buffer);
  return buffer_ != nullptr;
}

inline std::optional<absl::Span<const std::byte>> Connection::TakeAhead(
    size_t max_bytes) {
  if (!decoder_.at_boundary()) return std::nullopt;
  return TakeWholeFrame(ahead_, std::min(max_bytes, max_message_bytes_));
}

absl::Status Connection::Prefetch(Deadline deadline) {
  if (!read_ahead_ || expects_large_ || !ahead_.empty() ||
      !decoder_.at_boundary()) {
    return absl::OkStatus();
  }
  absl::Status status = ReadAhead(deadline);
  // Not to be read again, or the next writer of a FIFO would be waited for.
  if (status.ok() && ahead_.empty()) status = decoder_.EndOfStream();
  return status;
}

absl::Status Connection::ReadOnce(Deadline deadline) {
  const absl::Span<std::byte> space = decoder_.Space();
  if (space.empty()) return decoder_.status();  // there is no memory
  absl::StatusOr<size_t> n = Read(space, deadline);
  if (!n.ok()) return n.status();
  if (*n == 0) return decoder_.EndOfStream();
  return decoder_.Commit(*n);
}

absl::StatusOr<size_t> Connection::Read(absl::Span<std::byte> bytes,
                                        Deadline deadline) {
  if (decoder_.at_boundary()) frame_deadline_.reset();
  if (ahead_.empty()) {
    if (!read_ahead_ || expects_large_ || bytes.size() >= kLargeBytes) {
      return ReadStraight(bytes, deadline);
    }
    if (absl::Status status = ReadAhead(deadline); !status.ok()) return status;
  }
  const size_t n = std::min(bytes.size(), ahead_.size());
  CopyBytes(bytes.data(), ahead_.data(), n);
  ahead_.remove_prefix(n);
  return n;
}

absl::StatusOr<size_t> Connection::ReadStraight(absl::Span<std::byte> bytes,
                                                Deadline deadline) {
  // Less is not worth it, and of more the sender has seen to where it lies.
  constexpr size_t kLeast = 512;
  // The kernel has it at the beginning of a page, or behind a header there.
  const uintptr_t place = PlaceOf(bytes.data());
  if (bytes.size() < kLeast || bytes.size() > kBatchBytes ||
      !(IsSlowCopy(place, 0) || IsSlowCopy(place, FrameHeader::kShortSize))) {
    return ReadFromKernel(bytes, deadline);
  }
  if (!MakeBuffer()) return ReadFromKernel(bytes, deadline);
  absl::StatusOr<size_t> n =
      ReadFromKernel({buffer_->bytes, bytes.size()}, deadline);
  if (n.ok()) CopyBytes(bytes.data(), buffer_->bytes, *n);
  return n;
}

absl::StatusOr<size_t> Connection::ReadFromKernel(absl::Span<std::byte> bytes,
                                                  Deadline deadline) {
  const int early = std::exchange(early_, 1);
  if (early == 0) return 0;
  if (early < 0 && !MayGetFurther(-early)) {
    return ReceiveError(PosixError(-early, "read"));
  }
  const bool inside = !decoder_.at_boundary();
  absl::StatusOr<size_t> n =
      inside && (watch_sender_ || frame_timeout_ != absl::InfiniteDuration())
          ? ReadRest(bytes, deadline)
          : ReadNoting(bytes, deadline, &sender_pid_);
  if (!n.ok()) return ReceiveError(n.status());
  return n;
}

absl::StatusOr<size_t> Connection::ReadNoting(absl::Span<std::byte> bytes,
                                              Deadline deadline,
                                              pid_t* sender) {
  if (watch_sender_ && kind_ == StreamKind::kSocket) {
    return ReadSomeFrom(receiving(), bytes, deadline, sender);
  }
  return ReadSome(receiving(), bytes, deadline);
}

absl::StatusOr<size_t> Connection::ReadRest(absl::Span<std::byte> bytes,
                                            Deadline deadline) {
  if (!frame_deadline_.has_value()) {
    frame_deadline_ = Deadline::After(frame_timeout_);
  }
  const Deadline last = Deadline::Earlier(deadline, *frame_deadline_);
  bool is_gone = false;
  while (true) {
    Deadline tick = last;
    if (watch_sender_) {
      tick = Deadline::Earlier(
          last, Deadline::After(is_gone ? absl::ZeroDuration() : kWatchTick));
    }
    pid_t sender = 0;
    absl::StatusOr<size_t> n = ReadNoting(bytes, tick, &sender);
    // What was sent before we asked for it comes without.
    if (sender > 0) {
      const pid_t before = std::exchange(sender_pid_, sender);
      if (before > 0 && before != sender) {
        return decoder_.GiveUp(absl::DataLossError(absl::StrCat(
            "process ", sender, " sent into a message that process ", before,
            " has begun and not finished")));
      }
    }
    if (!absl::IsDeadlineExceeded(n.status())) return n;
    if (is_gone) {
      return decoder_.GiveUp(absl::DataLossError(
          "the sender of a message has died, or given up, inside it"));
    }
    // Once more then: what it sent last may have come since.
    is_gone = watch_sender_ && IsSenderGone();
    if (is_gone) continue;
    if (frame_deadline_->HasPassed()) {
      return decoder_.GiveUp(absl::DataLossError(absl::StrCat(
          "the rest of a message has not come within ",
          absl::FormatDuration(frame_timeout_), ", its frame_timeout")));
    }
    if (deadline.HasPassed()) return n;
  }
}

bool Connection::IsSenderGone() const {
  if (kind_ == StreamKind::kPipe) return !IsLockedForSending(fd_.get());
  return sender_pid_ > 0 && HasExited(sender_pid_);
}

absl::Status Connection::ReadAhead(Deadline deadline) {
  if (!MakeBuffer()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("there is no memory for a buffer of ", kBatchBytes,
                     " bytes: nothing was lost, try again"));
  }
  const absl::Span<std::byte> buffer(buffer_->bytes);
  absl::StatusOr<size_t> n = ReadFromKernel(buffer, deadline);
  if (!n.ok()) return n.status();
  ahead_ = buffer.first(*n);
  return absl::OkStatus();
}

absl::Status Connection::ReadHeader(Deadline deadline) {
  if (!decoder_.status().ok()) return decoder_.status();
  while (!decoder_.payload_bytes().has_value()) {
    if (absl::Status status = ReadOnce(deadline); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Connection::ReadFrame(Deadline deadline) {
  if (absl::Status status = ReadHeader(deadline); !status.ok()) return status;
  while (!decoder_.has_frame()) {
    if (absl::Status status = ReadOnce(deadline); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Connection::ReadPayload(absl::Span<std::byte> buffer,
                                     Deadline deadline) {
  // What an earlier call left when it timed out.
  const absl::string_view early = decoder_.partial_payload();
  std::copy(early.begin(), early.end(), reinterpret_cast<char*>(buffer.data()));
  const size_t start = early.size();
  size_t received = start;
  while (received < buffer.size()) {
    absl::StatusOr<size_t> n = Read(buffer.subspan(received), deadline);
    if (n.ok() && *n > 0) {
      received += *n;
      continue;
    }
    // The buffer goes back to the caller, so what has come moves to the
    // decoder.
    absl::Span<const std::byte> rest = buffer.subspan(start, received - start);
    decoder_.Decode(rest).IgnoreError();  // not a header: cannot be refused
    return n.ok() ? decoder_.EndOfStream() : n.status();
  }
  decoder_.SkipFrame();
  return absl::OkStatus();
}

absl::Status Connection::ReceiveError(const absl::Status& status) const {
  // A socket whose peer closed it with messages of ours unread is reset, not
  // ended; inside a frame that matters less than the frame.
  if (absl::IsUnavailable(status) && !decoder_.at_boundary()) {
    return decoder_.EndOfStream();
  }
  return status;
}

absl::StatusOr<bool> Connection::Poll(absl::Duration timeout) {
  if (!CanReceive()) return ReceiveRefusal();
  if (!decoder_.status().ok()) return decoder_.status();
  if (!ahead_.empty()) return true;
  absl::StatusOr<bool> ready =
      WaitReady(stream(), POLLIN, Deadline::After(timeout));
  if (!ready.ok()) {
    return Annotate(ready.status(), absl::StrCat("waiting for ", Name()));
  }
  return ready;
}

}  // namespace ipc::pipe
