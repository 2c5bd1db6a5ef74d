// LogBuffer keeps the last bytes that a process printed on its standard output
// and standard error, in the order in which they were read. Bytes are counted
// from the first, so that a reader who keeps a cursor sees what it has missed.
//
// Thread safety: none.
#ifndef SERVICES_SUPERVISOR_LOG_BUFFER_H_
#define SERVICES_SUPERVISOR_LOG_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace parley::supervisor {

class LogBuffer {
 public:
  enum class Stream { kStdout, kStderr };

  struct Piece {
    Stream stream;
    uint64_t cursor;         // of its first byte
    absl::string_view data;  // valid until the next Append
  };

  // Keeps at least the last `capacity` bytes, and at most twice as many.
  explicit LogBuffer(size_t capacity) : capacity_(capacity) {}

  void Append(Stream stream, absl::string_view data);

  // The first bytes at or after `cursor`, at most `max_bytes`, all of one
  // stream; nullopt if there are none. Piece::cursor is beyond `cursor` if some
  // in between were dropped.
  std::optional<Piece> Read(uint64_t cursor, size_t max_bytes) const;

  // Cursor of the next byte to come.
  uint64_t end() const { return end_; }

 private:
  struct Chunk {
    Stream stream;
    uint64_t begin;
    std::string data;
  };

  const size_t capacity_;
  uint64_t end_ = 0;
  std::deque<Chunk> chunks_;  // in order of begin, without gaps
};

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_LOG_BUFFER_H_
