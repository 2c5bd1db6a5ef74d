// The frame format of Python's multiprocessing.connection.Connection.send_bytes
// and recv_bytes, without any I/O: what a pipe or a stream socket lacks to
// carry messages.
//
//     size <= 0x7fffffff          | int32 size |             payload |
//     size >  0x7fffffff          | int32 -1   | uint64 size | payload |
//
// Both integers are big-endian. Any other negative first word is corrupt. A
// size that would fit the short header is accepted in the long one, as Python
// does.
//
// A FrameDecoder takes bytes as they come, so it serves blocking readers (such
// as ipc::pipe::Connection, which asks it how much to read) and event loops
// alike:
//
//   FrameDecoder decoder(/*max_message_bytes=*/1 << 20);
//   ...                                       // epoll says `fd` is readable
//   const ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
//   if (n == 0) return decoder.EndOfStream();
//   absl::Span<const std::byte> bytes(buffer, n);
//   while (true) {
//     absl::StatusOr<std::optional<std::string>> frame = decoder.Decode(bytes);
//     if (!frame.ok()) return frame.status();
//     if (!frame->has_value()) break;         // wait for more
//     Handle(**frame);
//   }
//
// Memory: a decoder holds at most one frame, and never more than twice the
// bytes of it that have arrived (or kFirstAllocationBytes, if that is more),
// and three times while it grows and copies: a peer that claims a huge size has
// to send it before it costs anything. If there is no memory, that is
// ResourceExhausted, not an exception.
//
// Thread safety: as a std::string.
#ifndef IPC_PIPE_FRAME_H_
#define IPC_PIPE_FRAME_H_

#include <endian.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace ipc::pipe {

// The largest payload that goes under the short header.
inline constexpr uint64_t kMaxShortPayload = 0x7fffffff;

// An encoded header, to be written before its payload.
class FrameHeader {
 public:
  static constexpr size_t kShortSize = 4;
  static constexpr size_t kLongSize = 12;
  static constexpr uint32_t kLongMark = 0xffffffff;  // -1

  absl::Span<const std::byte> bytes() const { return {bytes_.data(), size_}; }

 private:
  friend FrameHeader EncodeFrameHeader(uint64_t payload_bytes);
  FrameHeader() = default;

  std::array<std::byte, kLongSize> bytes_ = {};
  size_t size_ = 0;
};

inline FrameHeader EncodeFrameHeader(uint64_t payload_bytes) {
  FrameHeader header;
  if (payload_bytes <= kMaxShortPayload) {
    const uint32_t size = htobe32(static_cast<uint32_t>(payload_bytes));
    std::memcpy(header.bytes_.data(), &size, sizeof(size));
    header.size_ = FrameHeader::kShortSize;
  } else {
    const uint32_t mark = htobe32(FrameHeader::kLongMark);
    const uint64_t size = htobe64(payload_bytes);
    std::memcpy(header.bytes_.data(), &mark, sizeof(mark));
    std::memcpy(header.bytes_.data() + sizeof(mark), &size, sizeof(size));
    header.size_ = FrameHeader::kLongSize;
  }
  return header;
}

// Appends the whole frame of `payload` to `out`, for those who queue their
// output.
void AppendFrame(absl::string_view payload, std::string& out);

// The size of the frame whose short header `bytes` begin with. Everything else
// is a FrameDecoder's.
inline std::optional<uint32_t> PayloadBytes(absl::Span<const std::byte> bytes) {
  if (bytes.size() < FrameHeader::kShortSize) return std::nullopt;
  uint32_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof(size));
  size = be32toh(size);
  if (size > kMaxShortPayload) return std::nullopt;
  return size;
}

// If `bytes` begin with a whole frame under a short header, of at most
// `max_message_bytes`, takes it off their front and returns its payload.
inline std::optional<absl::Span<const std::byte>> TakeWholeFrame(
    absl::Span<const std::byte>& bytes, uint64_t max_message_bytes) {
  const std::optional<uint32_t> size = PayloadBytes(bytes);
  if (!size.has_value() || *size > bytes.size() - FrameHeader::kShortSize ||
      *size > max_message_bytes) {
    return std::nullopt;
  }
  const absl::Span<const std::byte> payload(
      bytes.data() + FrameHeader::kShortSize, *size);
  bytes = {payload.data() + *size,
           bytes.size() - FrameHeader::kShortSize - *size};
  return payload;
}

class FrameDecoder {
 public:
  // What is allocated for a frame before any of its payload has arrived, unless
  // the frame is smaller.
  static constexpr size_t kFirstAllocationBytes = size_t{64} << 10;

  // Frames of more than `max_message_bytes` are refused.
  explicit FrameDecoder(uint64_t max_message_bytes)
      : max_message_bytes_(max_message_bytes) {}

  // Takes bytes off the front of `bytes` up to the end of a frame, and returns
  // its payload; nullopt once `bytes` is empty and the frame is not complete.
  //
  // ResourceExhausted if the frame exceeds max_message_bytes, DataLoss if its
  // header is corrupt. Where the next frame starts is then unknown for good, so
  // every later call gives FailedPrecondition: drop the stream. Without memory
  // for the frame every call gives ResourceExhausted.
  absl::StatusOr<std::optional<std::string>> Decode(
      absl::Span<const std::byte>& bytes);

  // The same without a copy, for those who read straight into the decoder:
  //
  //   while (!decoder.has_frame()) {
  //     absl::Span<std::byte> space = decoder.Space();
  //     read n bytes, at most space.size(), into it
  //     if (absl::Status status = decoder.Commit(n); !status.ok()) ...
  //   }
  //   std::string frame = decoder.TakeFrame();

  // Where the next bytes belong. Ends with the current header or payload at the
  // latest, so that nobody's bytes are read but this frame's. Empty only if
  // has_frame() or status() is not OK, which it may become for lack of memory.
  // Valid until the next call of a member that is not const.
  absl::Span<std::byte> Space();
  // Says that the first `bytes` of Space() were filled. Errors as Decode.
  absl::Status Commit(size_t bytes);
  // Whether a frame is complete.
  bool has_frame() const {
    return payload_bytes_.has_value() && payload_received_ == *payload_bytes_;
  }
  // Hands out the frame. Requires has_frame().
  std::string TakeFrame();
  // Forgets the frame under way, of which the caller has read the rest.
  void SkipFrame();
  // Refuses the stream for a reason of the caller's, which it returns.
  absl::Status GiveUp(absl::Status reason);
  // The same, as there is no memory for so many bytes.
  absl::Status NoMemory(size_t bytes);

  // The size of the frame under way, as soon as its header is complete.
  std::optional<uint64_t> payload_bytes() const { return payload_bytes_; }
  // As much of the payload as has arrived.
  absl::string_view partial_payload() const {
    return absl::string_view(payload_.data(), payload_received_);
  }
  // Whether no byte of a frame has arrived after the last one: here, and only
  // here, may a stream end or be handed to another reader.
  bool at_boundary() const { return header_received_ == 0; }
  // OK until the stream is refused; then what every later call returns.
  const absl::Status& status() const { return status_; }

  // What the end of the stream means at this point: OutOfRange at a boundary, a
  // clean end; DataLoss inside a frame, which its sender did not finish.
  absl::Status EndOfStream() const;

 private:
  absl::Status ParseHeader();

  uint64_t max_message_bytes_;
  absl::Status status_;
  std::array<std::byte, FrameHeader::kLongSize> header_ = {};
  size_t header_received_ = 0;
  size_t header_expected_ = FrameHeader::kShortSize;
  std::optional<uint64_t> payload_bytes_;  // set when the header is complete
  std::string payload_;                    // its size is what is allocated
  size_t payload_received_ = 0;
};

}  // namespace ipc::pipe

#endif  // IPC_PIPE_FRAME_H_
