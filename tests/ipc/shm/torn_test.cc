// Readers and writers at full speed: a reader must never see half of one value
// and half of another, and sees versions in order.
#include <array>
#include <cstdint>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/array.h"
#include "ipc/shm/value.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

// Sanitizers make everything many times slower.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr uint32_t kRounds = 2'000;
#else
constexpr uint32_t kRounds = 50'000;
#endif

template <size_t kSize>
using Words = std::array<uint32_t, kSize / sizeof(uint32_t)>;

template <size_t kSize>
Words<kSize> Filled(uint32_t n) {
  Words<kSize> words;
  words.fill(n);
  return words;
}

// Whether all words are the same.
template <typename T>
bool IsWhole(const T& words) {
  for (const uint32_t word : words) {
    if (word != words[0]) return false;
  }
  return true;
}

// Stores 1, 2, 3 and so on.
template <size_t kSize>
bool Write(Value<Words<kSize>>& value) {
  for (uint32_t n = 1; n <= kRounds; ++n) {
    if (!value.Store(Filled<kSize>(n)).ok()) return false;
  }
  return true;
}

// Reads until the last one has come.
template <size_t kSize>
bool Read(const Value<Words<kSize>>& value) {
  for (uint32_t last = 0; last < kRounds;) {
    const auto words = value.Load();
    if (!words.ok() || !IsWhole(*words) || (*words)[0] < last) return false;
    last = (*words)[0];
  }
  return true;
}

template <typename Size>
class TornTest : public ::testing::Test {};
template <size_t kSize>
using Size = std::integral_constant<size_t, kSize>;
using Sizes = ::testing::Types<Size<8>, Size<12>, Size<64>, Size<4096>>;
TYPED_TEST_SUITE(TornTest, Sizes);

TYPED_TEST(TornTest, Threads) {
  auto value = Value<Words<TypeParam::value>>::CreateAnonymous();
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] { EXPECT_TRUE(Read<TypeParam::value>(*value)); });
  }
  EXPECT_TRUE(Write<TypeParam::value>(*value));
  for (std::thread& reader : readers) reader.join();
}

TYPED_TEST(TornTest, Processes) {
  auto value = Value<Words<TypeParam::value>>::CreateAnonymous();
  std::vector<Child> readers;
  for (int i = 0; i < 2; ++i) {
    readers.push_back(Child::Fork(
        [&](Child::Side) { return Read<TypeParam::value>(*value) ? 0 : 1; }));
  }
  EXPECT_TRUE(Write<TypeParam::value>(*value));
  for (Child& reader : readers) EXPECT_EQ(reader.Wait(), 0);
}

TYPED_TEST(TornTest, SeveralWriters) {
  constexpr size_t kSize = TypeParam::value;
  auto value = Value<Words<kSize>>::CreateAnonymous();
  std::vector<Child> writers;
  for (uint32_t i = 0; i < 2; ++i) {
    writers.push_back(Child::Fork([&, i](Child::Side) {
      for (uint32_t n = 0; n < kRounds / 4; ++n) {
        if (!value->Store(Filled<kSize>(n << 4 | i)).ok()) return 1;
        const auto words = value->Load();
        if (!words.ok() || !IsWhole(*words)) return 2;
      }
      return 0;
    }));
  }
  for (Child& writer : writers) EXPECT_EQ(writer.Wait(), 0);
  if (TypeParam::value > sizeof(uint64_t)) {
    EXPECT_EQ(value->version(), 1 + 2 * (kRounds / 4));
  }
}

// A single writer that does nothing else does not starve a reader.
TEST(ValueTest, ReadersGetThrough) {
  auto value = Value<Words<4096>>::CreateAnonymous();
  Child writer = Child::Fork([&](Child::Side) {
    const auto words = Filled<4096>(7);
    while (value->Store(words).ok()) {
    }
    return 1;
  });
  for (uint32_t i = 0; i < kRounds / 2; ++i) {
    ASSERT_THAT(value->Load(), IsOk());
  }
}

// Threads that lock and threads that do not; ThreadSanitizer must be content.
TEST(ArrayTest, SnapshotsAreWhole) {
  Array<uint32_t> array = *Array<uint32_t>::CreateAnonymous(257);
  std::vector<std::thread> threads;
  std::atomic<bool> done = false;
  std::atomic<int> whole = 0;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!done || whole == 0) {
        const auto copy = array.Snapshot();
        if (!copy.ok()) {
          EXPECT_EQ(copy.status().code(), absl::StatusCode::kUnavailable);
          continue;
        }
        EXPECT_TRUE(IsWhole(*copy));
        ++whole;
      }
    });
  }
  for (uint32_t n = 0; n < kRounds; ++n) {
    auto guard = array.Lock();
    ASSERT_THAT(guard, IsOk());
    for (uint32_t& element : guard->span()) element = n;
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace ipc::shm
