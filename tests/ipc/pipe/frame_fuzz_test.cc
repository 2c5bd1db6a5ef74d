// What a peer may have sent, in pieces chosen by a fuzzer. Any Status will do;
// a frame beyond the limit, more memory than has arrived, another frame for the
// same bytes in other pieces will not.
//
// The input: a byte from which the limit is made, and then pieces, each a byte
// for its size and so many bytes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ipc/pipe/frame.h"

namespace ipc::pipe {
namespace {

void Check(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "does not hold: %s\n", what);
  abort();
}

struct Result {
  std::vector<std::string> frames;
  absl::Status status;
  bool at_boundary = true;

  bool operator==(const Result&) const = default;
};

// By Decode, which takes pieces as they come.
Result Decode(uint64_t limit,
              const std::vector<absl::Span<const std::byte>>& pieces) {
  Result result;
  FrameDecoder decoder(limit);
  for (absl::Span<const std::byte> piece : pieces) {
    while (result.status.ok()) {
      absl::StatusOr<std::optional<std::string>> frame = decoder.Decode(piece);
      if (!frame.ok()) {
        result.status = frame.status();
        Check(!decoder.status().ok(), "a refusal lasts");
      } else if (frame->has_value()) {
        Check((*frame)->size() <= limit, "no frame exceeds the limit");
        result.frames.push_back(**std::move(frame));
      } else {
        Check(piece.empty(), "all is taken if there is no frame");
        break;
      }
    }
  }
  result.at_boundary = decoder.at_boundary();
  Check(decoder.EndOfStream().ok() == false, "an end is never OK");
  return result;
}

// By Space and Commit, as a Connection does.
Result Fill(uint64_t limit,
            const std::vector<absl::Span<const std::byte>>& pieces) {
  Result result;
  FrameDecoder decoder(limit);
  for (absl::Span<const std::byte> piece : pieces) {
    while (result.status.ok()) {
      if (decoder.has_frame()) {
        Check(decoder.Space().empty(), "no space beyond a frame");
        result.frames.push_back(decoder.TakeFrame());
        continue;
      }
      if (piece.empty()) break;
      const absl::Span<std::byte> space = decoder.Space();
      Check(!space.empty(), "there is space without a frame");
      Check(space.size() <= limit + FrameHeader::kLongSize,
            "no space beyond the limit");
      const size_t n = std::min(space.size(), piece.size());
      std::copy_n(piece.begin(), n, space.begin());
      piece.remove_prefix(n);
      result.status = decoder.Commit(n);
    }
  }
  result.at_boundary = decoder.at_boundary();
  return result;
}

// Whole ones at once, and a decoder for the rest, as a Connection that reads
// ahead.
Result Take(uint64_t limit,
            const std::vector<absl::Span<const std::byte>>& pieces) {
  Result result;
  FrameDecoder decoder(limit);
  for (absl::Span<const std::byte> piece : pieces) {
    while (result.status.ok()) {
      if (decoder.at_boundary()) {
        if (const auto frame = TakeWholeFrame(piece, limit)) {
          result.frames.emplace_back(
              reinterpret_cast<const char*>(frame->data()), frame->size());
          continue;
        }
      }
      absl::StatusOr<std::optional<std::string>> frame = decoder.Decode(piece);
      result.status = frame.status();
      if (!frame.ok() || !frame->has_value()) break;
      result.frames.push_back(**std::move(frame));
    }
  }
  result.at_boundary = decoder.at_boundary();
  return result;
}

void Run(const uint8_t* data, size_t size) {
  if (size == 0) return;
  const uint64_t limit = uint64_t{data[0]} * data[0] * 8;
  const auto* bytes = reinterpret_cast<const std::byte*>(data + 1);
  size_t left = size - 1;
  std::vector<absl::Span<const std::byte>> pieces;
  std::vector<std::byte> all;
  while (left > 0) {
    const size_t want = static_cast<size_t>(*bytes);
    ++bytes;
    --left;
    const size_t n = std::min(want, left);
    pieces.emplace_back(bytes, n);
    all.insert(all.end(), bytes, bytes + n);
    bytes += n;
    left -= n;
  }
  const Result result = Decode(limit, pieces);
  Check(result == Fill(limit, pieces), "both ways give the same");
  Check(result == Take(limit, pieces), "a short cut gives the same");
  Check(result == Decode(limit, {absl::MakeConstSpan(all)}),
        "pieces do not matter");
}

}  // namespace
}  // namespace ipc::pipe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ipc::pipe::Run(data, size);
  return 0;
}
