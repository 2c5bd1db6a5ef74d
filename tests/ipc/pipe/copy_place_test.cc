// Messages from and to wherever memory may lie in its page: a Connection takes
// other ways with those that would be copied slowly (see ipc/base/copy.h).
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/copy.h"
#include "ipc/pipe/connection.h"

namespace ipc::pipe {
namespace {

constexpr absl::Duration kLong = absl::Minutes(5);
constexpr absl::Duration kForEver = absl::InfiniteDuration();
constexpr size_t kPage = 4096;

// Around where the way changes: behind a header of four bytes, 2 KiB on, and
// where malloc has large blocks begin.
const std::vector<size_t> kPlaces = {
    0, 3, 4, 16, 35, 36, 64, 2016, 2017, 2047, 2048, 3040, 4064, 4068, 4095};
const std::vector<size_t> kSizes = {
    511,   4096,       4097,   16384,   65531,           65536,
    65537, 131072 - 4, 131072, 1 << 20, (1 << 20) + 2040};

// Memory whose first byte is at `place` of a page.
class Placed {
 public:
  Placed(size_t size, size_t place)
      : memory_(static_cast<std::byte*>(
            std::aligned_alloc(kPage, (place + size + kPage) & ~(kPage - 1)))),
        bytes_(memory_.get() + place, size) {}
  absl::Span<std::byte> bytes() const { return bytes_; }
  absl::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  absl::Span<std::byte> bytes_;
};

// Different bytes for each seed, made only once: a sanitizer takes its time.
void Fill(absl::Span<std::byte> bytes, size_t seed) {
  constexpr size_t kSeeds = 4099;
  static const std::vector<std::byte> all = [] {
    std::vector<std::byte> made((size_t{1} << 20) + 2 * kPage + kSeeds);
    for (size_t i = 0; i < made.size(); ++i) {
      made[i] = static_cast<std::byte>(i * 31 + i / 251 + i / 65521);
    }
    return made;
  }();
  ASSERT_LE(seed % kSeeds + bytes.size(), all.size());
  std::memcpy(bytes.data(), all.data() + seed % kSeeds, bytes.size());
}

struct Case {
  bool duplex;
  Connection::Options options;
  // Who has no time limit goes other ways.
  absl::Duration timeout;
  std::string name;
};

class CopyPlaceTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    auto ends = Connection::CreatePair(GetParam().duplex, GetParam().options);
    ASSERT_TRUE(ends.ok()) << ends.status();
    ends_ =
        std::make_unique<std::pair<Connection, Connection>>(*std::move(ends));
  }

  // Sends one message of each size from each place, and calls `receive` for
  // each, which has to receive what it is given.
  template <typename Receive>
  void SendAll(Receive receive) {
    std::thread sender([this] {
      for (const size_t size : kSizes) {
        for (const size_t place : kPlaces) {
          const Placed message(size, place);
          Fill(message.bytes(), size + place);
          EXPECT_TRUE(ends_->second.Send(message.text(), timeout()).ok());
        }
      }
    });
    for (const size_t size : kSizes) {
      const Placed expected(size, 64);
      for (const size_t place : kPlaces) {
        Fill(expected.bytes(), size + place);
        receive(expected.text(), absl::StrCat(size, " B from ", place));
      }
    }
    sender.join();
  }

  static absl::Duration timeout() { return GetParam().timeout; }

  std::unique_ptr<std::pair<Connection, Connection>> ends_;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const bool duplex : {false, true}) {
    const std::string kind = duplex ? "Socketpair" : "Pipe";
    cases.push_back({duplex, {}, kLong, kind});
    cases.push_back({duplex, {}, kForEver, kind + "ForEver"});
    cases.push_back({duplex, {.read_ahead = true}, kLong, kind + "ReadsAhead"});
    cases.push_back(
        {duplex, {.read_ahead = true}, kForEver, kind + "ReadsAheadForEver"});
    cases.push_back({duplex, {.watch_sender = true}, kLong, kind + "Watched"});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Kinds, CopyPlaceTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(CopyPlaceTest, ReceiveInto) {
  size_t next = 0;
  SendAll([&](absl::string_view expected, const std::string& what) {
    // Each place meets each other one, in time.
    const size_t place = kPlaces[(next++ * 7) % kPlaces.size()];
    // One more byte, which is not theirs.
    const Placed buffer(expected.size() + 1, place);
    buffer.bytes().back() = std::byte{0x5a};
    const auto into = buffer.bytes().first(expected.size());
    absl::StatusOr<size_t> n = ends_->first.ReceiveInto(into, timeout());
    ASSERT_TRUE(n.ok()) << n.status();
    ASSERT_EQ(*n, expected.size());
    // Not EXPECT_EQ, which would print a MiB.
    EXPECT_TRUE(buffer.text().substr(0, *n) == expected)
        << what << " to " << place;
    EXPECT_EQ(buffer.bytes().back(), std::byte{0x5a});
  });
}

TEST_P(CopyPlaceTest, Receive) {
  SendAll([&](absl::string_view expected, const std::string& what) {
    absl::StatusOr<std::string> message = ends_->first.Receive(timeout());
    ASSERT_TRUE(message.ok()) << message.status();
    EXPECT_TRUE(*message == expected) << what;
  });
}

TEST_P(CopyPlaceTest, ReceiveCord) {
  SendAll([&](absl::string_view expected, const std::string& what) {
    absl::StatusOr<absl::Cord> message = ends_->first.ReceiveCord(timeout());
    ASSERT_TRUE(message.ok()) << message.status();
    EXPECT_TRUE(*message == expected) << what;
  });
}

// A message of two writes takes no more of an empty pipe than one of one: it
// can be sent before anybody receives.
TEST(CopyPlacePipeTest, TwoWritesTakeNoMorePages) {
  for (const size_t place : kPlaces) {
    for (const size_t size : {16 * kPage - 4, 20 * kPage, 32 * kPage - 4,
                              32 * kPage - 5, 31 * kPage + 1}) {
      auto ends = Connection::CreatePair(false);
      ASSERT_TRUE(ends.ok()) << ends.status();
      const Placed message(size, place);
      Fill(message.bytes(), place);
      ASSERT_TRUE(ends->second.Send(message.text(), kForEver).ok())
          << size << " B from " << place;
      absl::StatusOr<std::string> received = ends->first.Receive(kLong);
      ASSERT_TRUE(received.ok()) << received.status();
      EXPECT_TRUE(*received == message.text());
    }
  }
}

}  // namespace
}  // namespace ipc::pipe
