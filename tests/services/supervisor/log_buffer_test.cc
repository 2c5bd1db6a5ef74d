#include "services/supervisor/log_buffer.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::supervisor {
namespace {

constexpr auto kStdout = LogBuffer::Stream::kStdout;
constexpr auto kStderr = LogBuffer::Stream::kStderr;

// All that a reader at `cursor` gets.
std::string ReadAll(const LogBuffer& log, uint64_t cursor) {
  std::string text;
  while (auto piece = log.Read(cursor, 3)) {
    if (piece->cursor != cursor) text += "[gap]";
    text += piece->stream == kStdout ? 'o' : 'e';
    text.append(piece->data.data(), piece->data.size());
    cursor = piece->cursor + piece->data.size();
  }
  return text;
}

TEST(LogBufferTest, KeepsTheOrderOfBothStreams) {
  LogBuffer log(1000);
  log.Append(kStdout, "ab");
  log.Append(kStdout, "cd");
  log.Append(kStderr, "");
  log.Append(kStderr, "EF");
  log.Append(kStdout, "gh");
  EXPECT_EQ(log.end(), 8u);
  EXPECT_EQ(ReadAll(log, 0), "oabcodeEFogh");
  EXPECT_EQ(ReadAll(log, 5), "eFogh");
  EXPECT_EQ(ReadAll(log, 8), "");
}

TEST(LogBufferTest, KeepsTheLastBytesAndTellsOfTheGap) {
  LogBuffer log(64);
  std::string all;
  for (int i = 0; i < 1000; ++i) {
    const std::string piece(1 + i % 7, static_cast<char>('a' + i % 26));
    log.Append(kStdout, piece);
    all += piece;
    ASSERT_EQ(log.end(), all.size());
    const auto first = log.Read(0, 1000);
    ASSERT_TRUE(first.has_value());
    const size_t kept = all.size() - first->cursor;
    ASSERT_GE(kept, std::min<size_t>(64, all.size()));
    ASSERT_LE(kept, 128u);
    // What is kept is what was written there.
    uint64_t cursor = first->cursor;
    while (auto next = log.Read(cursor, 5)) {
      ASSERT_EQ(next->cursor, cursor);
      ASSERT_EQ(std::string(next->data), all.substr(cursor, next->data.size()));
      cursor += next->data.size();
    }
    ASSERT_EQ(cursor, all.size());
  }
}

}  // namespace
}  // namespace parley::supervisor
