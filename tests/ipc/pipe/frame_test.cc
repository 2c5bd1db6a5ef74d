#include "ipc/pipe/frame.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ipc::pipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Span<const std::byte> Bytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

absl::string_view Text(absl::Span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string Encoded(uint64_t size) {
  const FrameHeader header = EncodeFrameHeader(size);
  return std::string(reinterpret_cast<const char*>(header.bytes().data()),
                     header.bytes().size());
}

std::string Frame(absl::string_view payload) {
  std::string frame;
  AppendFrame(payload, frame);
  return frame;
}

// Everything that `decoder` gets out of `stream`, until it wants more.
std::vector<std::string> DecodeAll(FrameDecoder& decoder,
                                   absl::string_view stream) {
  std::vector<std::string> frames;
  absl::Span<const std::byte> bytes = Bytes(stream);
  while (true) {
    absl::StatusOr<std::optional<std::string>> frame = decoder.Decode(bytes);
    EXPECT_TRUE(frame.ok()) << frame.status();
    if (!frame.ok() || !frame->has_value()) break;
    frames.push_back(**frame);
  }
  EXPECT_TRUE(bytes.empty());
  return frames;
}

absl::Status DecodeError(FrameDecoder& decoder, absl::string_view stream) {
  absl::Span<const std::byte> bytes = Bytes(stream);
  return decoder.Decode(bytes).status();
}

// What struct.pack("!i", n) and struct.pack("!iQ", -1, n) give.
TEST(FrameHeaderTest, IsWhatPythonWrites) {
  EXPECT_EQ(Encoded(0), std::string("\0\0\0\0", 4));
  EXPECT_EQ(Encoded(1), std::string("\0\0\0\1", 4));
  EXPECT_EQ(Encoded(16385), std::string("\0\0\x40\1", 4));
  EXPECT_EQ(Encoded(0x7fffffff), "\x7f\xff\xff\xff");
  EXPECT_EQ(Encoded(0x80000000),
            std::string("\xff\xff\xff\xff\0\0\0\0\x80\0\0\0", 12));
  EXPECT_EQ(Encoded(0x0102030405060708), "\xff\xff\xff\xff\1\2\3\4\5\6\7\x08");
}

TEST(FrameDecoderTest, TakesSeveralFramesFromOneBuffer) {
  FrameDecoder decoder(100);
  EXPECT_THAT(DecodeAll(decoder, Frame("one") + Frame("") + Frame("three")),
              ElementsAre("one", "", "three"));
  EXPECT_TRUE(decoder.at_boundary());
}

TEST(FrameDecoderTest, TakesFramesByteByByte) {
  FrameDecoder decoder(100);
  const std::string stream = Frame("hello") + Frame("") + Frame("x");
  std::vector<std::string> frames;
  for (const char c : stream) {
    for (std::string& frame : DecodeAll(decoder, absl::string_view(&c, 1))) {
      EXPECT_TRUE(decoder.at_boundary());
      frames.push_back(std::move(frame));
    }
  }
  EXPECT_THAT(frames, ElementsAre("hello", "", "x"));
}

TEST(FrameDecoderTest, TakesFramesCutAnywhere) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::vector<std::string> sent;
  std::string stream;
  for (int i = 0; i < 200; ++i) {
    sent.push_back(std::string(random() % 3 == 0 ? random() % 200'000 : i % 7,
                               static_cast<char>(i)));
    AppendFrame(sent.back(), stream);
  }
  FrameDecoder decoder(1 << 20);
  std::vector<std::string> received;
  absl::string_view rest = stream;
  while (!rest.empty()) {
    const absl::string_view piece = rest.substr(0, 1 + random() % 100'000);
    rest.remove_prefix(piece.size());
    for (std::string& frame : DecodeAll(decoder, piece)) {
      received.push_back(std::move(frame));
    }
  }
  EXPECT_TRUE(sent == received);
}

TEST(FrameDecoderTest, TakesALongHeaderWithAShortLength) {
  FrameDecoder decoder(100);
  EXPECT_THAT(DecodeAll(decoder, std::string("\xff\xff\xff\xff\0\0\0\0\0\0\0\2"
                                             "hi",
                                             14)),
              ElementsAre("hi"));
}

TEST(FrameDecoderTest, RejectsOtherNegativeLengths) {
  for (const absl::string_view header :
       {"\xff\xff\xff\xfe", "\x80\xff\xff\xff"}) {
    FrameDecoder decoder(100);
    EXPECT_TRUE(absl::IsDataLoss(DecodeError(decoder, header)));
  }
}

TEST(FrameDecoderTest, SaysAfterACorruptHeaderThatTheStreamIsLost) {
  FrameDecoder decoder(100);
  const absl::Status first = DecodeError(decoder, "\xff\xff\xff\xfe");
  EXPECT_THAT(std::string(first.message()), HasSubstr("length -2"));
  const absl::Status second = DecodeError(decoder, Frame("good"));
  EXPECT_TRUE(absl::IsFailedPrecondition(second)) << second;
  EXPECT_THAT(std::string(second.message()), HasSubstr("length -2"));
  EXPECT_TRUE(decoder.Space().empty());
  EXPECT_EQ(decoder.status(), second);
}

TEST(FrameDecoderTest, AcceptsTheLimitAndRefusesOneMore) {
  FrameDecoder decoder(10);
  EXPECT_THAT(DecodeAll(decoder, Frame("0123456789")),
              ElementsAre("0123456789"));
  const absl::Status status = DecodeError(decoder, Frame("01234567890"));
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("11 bytes"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("10 bytes"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_message_bytes"));
}

TEST(FrameDecoderTest, RefusesTheLargestLength) {
  FrameDecoder decoder(UINT64_MAX - 1);
  EXPECT_TRUE(absl::IsResourceExhausted(DecodeError(
      decoder, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")));
}

// An allocation of what this header claims would throw or abort.
TEST(FrameDecoderTest, AllocatesByWhatArrivesNotByWhatIsClaimed) {
  FrameDecoder decoder(UINT64_MAX);
  EXPECT_TRUE(DecodeAll(decoder, Encoded(uint64_t{1} << 62)).empty());
  EXPECT_EQ(decoder.payload_bytes(), uint64_t{1} << 62);
  size_t received = 0;
  for (int i = 0; i < 100; ++i) {
    EXPECT_LE(decoder.Space().size(),
              std::max(FrameDecoder::kFirstAllocationBytes, received));
    EXPECT_TRUE(DecodeAll(decoder, std::string(10'000, 'x')).empty());
    received += 10'000;
  }
  EXPECT_EQ(decoder.partial_payload().size(), received);
}

TEST(FrameDecoderTest, NeverAsksForMoreThanTheCurrentPart) {
  FrameDecoder decoder(1000);
  EXPECT_EQ(decoder.Space().size(), FrameHeader::kShortSize);
  DecodeAll(decoder, Encoded(7));
  EXPECT_EQ(decoder.Space().size(), 7);
  DecodeAll(decoder, "abc");
  EXPECT_EQ(decoder.Space().size(), 4);
  EXPECT_THAT(DecodeAll(decoder, "defg"), ElementsAre("abcdefg"));
  EXPECT_EQ(decoder.Space().size(), FrameHeader::kShortSize);
}

TEST(FrameDecoderTest, AsksForTheRestOfALongHeader) {
  FrameDecoder decoder(1000);
  DecodeAll(decoder, "\xff\xff\xff\xff");
  EXPECT_EQ(decoder.payload_bytes(), std::nullopt);
  EXPECT_EQ(decoder.Space().size(), 8);
}

TEST(FrameDecoderTest, CommitCompletesAFrame) {
  FrameDecoder decoder(1000);
  const std::string frame = Frame("payload");
  for (const char c : frame) {
    EXPECT_FALSE(decoder.has_frame());
    decoder.Space()[0] = static_cast<std::byte>(c);
    ASSERT_TRUE(decoder.Commit(1).ok());
  }
  ASSERT_TRUE(decoder.has_frame());
  EXPECT_EQ(decoder.TakeFrame(), "payload");
  EXPECT_FALSE(decoder.has_frame());
}

TEST(FrameDecoderTest, SkipFrameForgetsTheFrameUnderWay) {
  FrameDecoder decoder(1000);
  DecodeAll(decoder, Encoded(5) + "ab");
  EXPECT_EQ(decoder.partial_payload(), "ab");
  decoder.SkipFrame();
  EXPECT_TRUE(decoder.at_boundary());
  EXPECT_THAT(DecodeAll(decoder, Frame("next")), ElementsAre("next"));
}

TEST(FrameDecoderTest, TellsACleanEndFromATruncatedFrame) {
  FrameDecoder decoder(1000);
  EXPECT_TRUE(absl::IsOutOfRange(decoder.EndOfStream()));
  DecodeAll(decoder, Frame("whole"));
  EXPECT_TRUE(absl::IsOutOfRange(decoder.EndOfStream()));

  DecodeAll(decoder, Encoded(5).substr(0, 3));
  EXPECT_TRUE(absl::IsDataLoss(decoder.EndOfStream()));
  EXPECT_THAT(std::string(decoder.EndOfStream().message()),
              HasSubstr("3 of the 4 bytes of its header"));

  DecodeAll(decoder, Encoded(5).substr(3));
  EXPECT_TRUE(absl::IsDataLoss(decoder.EndOfStream()));

  DecodeAll(decoder, "abc");
  EXPECT_THAT(std::string(decoder.EndOfStream().message()),
              HasSubstr("3 of the 5 bytes of its payload"));
}

TEST(TakeWholeFrameTest, TakesOneAfterTheOther) {
  const std::string stream = Frame("abc") + Frame("") + Frame("d");
  absl::Span<const std::byte> bytes = Bytes(stream);
  for (const char* payload : {"abc", "", "d"}) {
    const auto frame = TakeWholeFrame(bytes, 3);
    ASSERT_TRUE(frame.has_value());
    EXPECT_EQ(Text(*frame), payload);
  }
  EXPECT_TRUE(bytes.empty());
  EXPECT_EQ(TakeWholeFrame(bytes, 3), std::nullopt);
}

TEST(TakeWholeFrameTest, LeavesWhatIsNotWholeOrTooLargeOrCorrupt) {
  const std::string whole = Frame("abc");
  for (size_t size = 0; size < whole.size(); ++size) {
    absl::Span<const std::byte> bytes = Bytes(whole).first(size);
    EXPECT_EQ(TakeWholeFrame(bytes, 3), std::nullopt) << size;
    EXPECT_EQ(bytes.size(), size);
  }
  for (const std::string& stream :
       {Frame("abcd"), std::string("\xff\xff\xff\xff", 4) + Frame("abc"),
        std::string("\x80\0\0\0abc", 7)}) {
    absl::Span<const std::byte> bytes = Bytes(stream);
    EXPECT_EQ(TakeWholeFrame(bytes, 3), std::nullopt);
    EXPECT_EQ(bytes.size(), stream.size());
  }
}

}  // namespace
}  // namespace ipc::pipe
