#include "ipc/base/copy.h"

#include <cstddef>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace ipc {
namespace {

constexpr size_t kPage = 4096;

TEST(IsSlowCopy, IsOneToThirtyOneBytesBehindModuloPage) {
  for (const size_t page : {size_t{0}, kPage, 7 * kPage}) {
    for (size_t from = 0; from < kPage; from += 61) {
      int slow = 0;
      for (size_t distance = 0; distance < kPage; ++distance) {
        if (IsSlowCopy(page + from + distance, from)) {
          EXPECT_GE(distance, 1u);
          EXPECT_LE(distance, 31u);
          ++slow;
        }
      }
      EXPECT_EQ(slow, 31);
    }
  }
  // Whichever of the two is the higher one.
  EXPECT_TRUE(IsSlowCopy(16, 8 * kPage));
  EXPECT_FALSE(IsSlowCopy(8 * kPage, 16));
}

TEST(CopyBytes, CopiesAllAndNoMore) {
  constexpr size_t kLargest = (size_t{512} << 10) + 5000;
  constexpr std::byte kOther{0xee};
  std::vector<std::byte> source(kLargest + 2 * kPage);
  for (size_t i = 0; i < source.size(); ++i) {
    source[i] = static_cast<std::byte>(i * 131 / 7);
  }
  std::vector<std::byte> target(source.size());
  // At a page's beginning, wherever the vectors are.
  const auto aligned = [](std::vector<std::byte>& bytes) {
    return bytes.data() + (kPage - PlaceOf(bytes.data()) % kPage) % kPage;
  };
  const std::byte* const from = aligned(source);
  for (const size_t distance : {0, 1, 4, 16, 31, 32, 64, 2048, 4080}) {
    std::byte* const to = aligned(target) + distance;
    for (const size_t bytes :
         {size_t{0}, size_t{1}, size_t{2047}, size_t{2048}, size_t{2049},
          size_t{4096}, size_t{6145}, size_t{65536}, (size_t{512} << 10) - 1,
          size_t{512} << 10, kLargest}) {
      if (to + bytes >= target.data() + target.size()) continue;
      std::memset(target.data(), static_cast<int>(kOther), target.size());
      CopyBytes(to, from, bytes);
      ASSERT_EQ(std::memcmp(to, from, bytes), 0) << distance << " " << bytes;
      ASSERT_EQ(to[bytes], kOther) << distance << " " << bytes;
      if (to > target.data()) {
        ASSERT_EQ(to[-1], kOther);
      }
    }
  }
}

TEST(CopyBytes, TakesNoBytesFromNowhere) { CopyBytes(nullptr, nullptr, 0); }

}  // namespace
}  // namespace ipc
