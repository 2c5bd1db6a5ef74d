#include "services/supervisor/log_buffer.h"

#include <algorithm>

namespace parley::supervisor {

void LogBuffer::Append(Stream stream, absl::string_view data) {
  if (data.empty()) return;
  // Small writes of one stream share a chunk, so that a program that prints
  // byte by byte costs bytes, not chunks; but a chunk is dropped as a whole, so
  // it stays a fraction of the capacity.
  const size_t max_chunk = std::max<size_t>(capacity_ / 16, 1);
  if (!chunks_.empty() && chunks_.back().stream == stream &&
      chunks_.back().data.size() + data.size() <= max_chunk) {
    chunks_.back().data.append(data.data(), data.size());
  } else {
    chunks_.push_back({stream, end_, std::string(data)});
  }
  end_ += data.size();
  while (chunks_.size() > 1 &&
         end_ - chunks_.front().begin - chunks_.front().data.size() >=
             capacity_) {
    chunks_.pop_front();
  }
}

std::optional<LogBuffer::Piece> LogBuffer::Read(uint64_t cursor,
                                                size_t max_bytes) const {
  if (cursor >= end_) return std::nullopt;
  // The last chunk that begins at or before the cursor, or else the first.
  auto it = std::upper_bound(
      chunks_.begin(), chunks_.end(), cursor,
      [](uint64_t c, const Chunk& chunk) { return c < chunk.begin; });
  if (it != chunks_.begin()) --it;
  const uint64_t begin = std::max(cursor, it->begin);
  return Piece{
      it->stream, begin,
      absl::string_view(it->data).substr(begin - it->begin, max_bytes)};
}

}  // namespace parley::supervisor
