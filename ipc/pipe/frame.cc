#include "ipc/pipe/frame.h"

#include <endian.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ipc::pipe {
void AppendFrame(absl::string_view payload, std::string& out) {
  const FrameHeader header = EncodeFrameHeader(payload.size());
  out.append(reinterpret_cast<const char*>(header.bytes().data()),
             header.bytes().size());
  out.append(payload.data(), payload.size());
}

absl::StatusOr<std::optional<std::string>> FrameDecoder::Decode(
    absl::Span<const std::byte>& bytes) {
  if (!status_.ok()) return status_;
  while (!has_frame()) {
    if (bytes.empty()) return std::nullopt;
    const absl::Span<std::byte> space = Space();
    if (space.empty()) return status_;
    const size_t n = std::min(space.size(), bytes.size());
    std::memcpy(space.data(), bytes.data(), n);
    bytes.remove_prefix(n);
    if (absl::Status status = Commit(n); !status.ok()) return status;
  }
  return TakeFrame();
}

absl::Span<std::byte> FrameDecoder::Space() {
  if (!status_.ok()) return {};
  if (!payload_bytes_.has_value()) {
    return {header_.data() + header_received_,
            header_expected_ - header_received_};
  }
  if (payload_received_ == payload_.size()) {
    // Doubling keeps the copying linear; starting small and growing only when
    // full keeps a claimed size from allocating anything.
    const size_t size = std::min<uint64_t>(
        *payload_bytes_,
        std::max<uint64_t>(kFirstAllocationBytes, 2 * payload_.size()));
    try {
      payload_.resize(size);
    } catch (const std::bad_alloc&) {
      status_ = absl::ResourceExhaustedError(
          absl::StrCat("no memory for ", size,
                       " bytes of a frame: the stream was given up"));
      return {};
    }
  }
  return {reinterpret_cast<std::byte*>(payload_.data()) + payload_received_,
          payload_.size() - payload_received_};
}

absl::Status FrameDecoder::Commit(size_t bytes) {
  if (!status_.ok()) return status_;
  if (payload_bytes_.has_value()) {
    payload_received_ += bytes;
    return absl::OkStatus();
  }
  header_received_ += bytes;
  if (header_received_ < header_expected_) return absl::OkStatus();
  return ParseHeader();
}

absl::Status FrameDecoder::ParseHeader() {
  uint32_t first;
  std::memcpy(&first, header_.data(), sizeof(first));
  first = be32toh(first);
  uint64_t size = first;
  if (first == FrameHeader::kLongMark) {
    header_expected_ = FrameHeader::kLongSize;
    if (header_received_ < header_expected_) return absl::OkStatus();
    std::memcpy(&size, header_.data() + sizeof(first), sizeof(size));
    size = be64toh(size);
  } else if (first > kMaxShortPayload) {
    return GiveUp(absl::DataLossError(absl::StrCat(
        "corrupt frame header: length ", static_cast<int32_t>(first),
        "; the peer does not speak the frame format of "
        "multiprocessing.connection, or somebody else wrote in between")));
  }
  if (size > max_message_bytes_) {
    return GiveUp(absl::ResourceExhaustedError(absl::StrCat(
        "a frame of ", size, " bytes exceeds the limit of ", max_message_bytes_,
        " bytes: raise max_message_bytes, or send less")));
  }
  payload_bytes_ = size;
  return absl::OkStatus();
}

absl::Status FrameDecoder::NoMemory(size_t bytes) {
  return status_ = absl::ResourceExhaustedError(
             absl::StrCat("there is no memory for ", bytes,
                          " bytes of a frame, and the stream was given up: "
                          "close it and open a new one"));
}

absl::Status FrameDecoder::GiveUp(absl::Status reason) {
  status_ = absl::FailedPreconditionError(
      absl::StrCat("the stream was given up, as its frame boundaries are lost "
                   "since an earlier error (",
                   reason.message(), "): close it and open a new one"));
  return reason;
}

std::string FrameDecoder::TakeFrame() {
  std::string frame = std::move(payload_);
  SkipFrame();
  return frame;
}

void FrameDecoder::SkipFrame() {
  header_received_ = 0;
  header_expected_ = FrameHeader::kShortSize;
  payload_bytes_.reset();
  payload_.clear();
  payload_received_ = 0;
}

absl::Status FrameDecoder::EndOfStream() const {
  if (at_boundary()) {
    return absl::OutOfRangeError("closed by the peer: no more messages");
  }
  if (!payload_bytes_.has_value()) {
    return absl::DataLossError(absl::StrCat(
        "the stream ended inside a frame, after ", header_received_, " of the ",
        header_expected_, " bytes of its header"));
  }
  return absl::DataLossError(
      absl::StrCat("the stream ended inside a frame, after ", payload_received_,
                   " of the ", *payload_bytes_, " bytes of its payload"));
}

}  // namespace ipc::pipe
