// Readers and writers at full speed: a reader must never see half of one value
// and half of another, and sees versions in order.
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

#include "absl/base/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/array.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/value.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

// How many different values each reader sees, all of them stored while it reads
// or between two of its loads; and with how many of its loads a store overlaps.
// Sanitizers make everything many times slower.
#if defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_ADDRESS_SANITIZER)
constexpr uint32_t kDifferent = 500;
#else
constexpr uint32_t kDifferent = 5'000;
#endif

constexpr uint32_t kReaders = 2;

// What the test itself has in shared memory.
struct Race {
  // How often a store has begun or ended: odd within one.
  std::atomic<uint32_t> stores;
  std::atomic<uint32_t> content;  // readers, or writers, that have seen enough
};

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

// Stores 1, 2, 3 and so on until all readers have seen enough.
template <size_t kSize>
bool Write(Value<Words<kSize>>& value, Race& race) {
  for (uint32_t n = 1; race.content < kReaders; ++n) {
    // Release: enough to say when, roughly; a fence would slow it down.
    race.stores.store(2 * n - 1, std::memory_order_release);
    if (!value.Store(Filled<kSize>(n)).ok()) return false;
    race.stores.store(2 * n, std::memory_order_release);
  }
  return true;
}

// Reads until it has seen enough. Whatever it finds, the writer must not wait.
template <size_t kSize>
bool Read(const Value<Words<kSize>>& value, Race& race) {
  const auto read = [&] {
    uint32_t last = 0;
    for (uint32_t different = 0, overlapping = 0;
         different < kDifferent || overlapping < kDifferent;) {
      const uint32_t before = race.stores;
      const auto words = value.Load();
      const bool overlaps = before % 2 != 0 || race.stores != before;
      if (!words.ok() || !IsWhole(*words) || (*words)[0] < last) return false;
      overlapping += overlaps ? 1 : 0;
      different += (*words)[0] != last ? 1 : 0;
      last = (*words)[0];
    }
    return true;
  };
  const bool fine = read();
  ++race.content;
  return fine;
}

template <typename Size>
class TornTest : public ::testing::Test {
 protected:
  Segment memory_ = *Segment::CreateAnonymous(sizeof(Race));
  Race& race_ = *reinterpret_cast<Race*>(memory_.bytes().data());
};
template <size_t kSize>
using Size = std::integral_constant<size_t, kSize>;
using Sizes = ::testing::Types<Size<8>, Size<12>, Size<64>, Size<4096>>;
TYPED_TEST_SUITE(TornTest, Sizes);

TYPED_TEST(TornTest, Threads) {
  constexpr size_t kSize = TypeParam::value;
  auto value = Value<Words<kSize>>::CreateAnonymous();
  std::vector<std::thread> readers;
  for (uint32_t i = 0; i < kReaders; ++i) {
    readers.emplace_back(
        [&] { EXPECT_TRUE(Read<kSize>(*value, this->race_)); });
  }
  EXPECT_TRUE(Write<kSize>(*value, this->race_));
  for (std::thread& reader : readers) reader.join();
}

TYPED_TEST(TornTest, Processes) {
  constexpr size_t kSize = TypeParam::value;
  auto value = Value<Words<kSize>>::CreateAnonymous();
  std::vector<Child> readers;
  for (uint32_t i = 0; i < kReaders; ++i) {
    readers.push_back(Child::Fork(
        [&](Child::Side) { return Read<kSize>(*value, this->race_) ? 0 : 1; }));
  }
  EXPECT_TRUE(Write<kSize>(*value, this->race_));
  for (Child& reader : readers) EXPECT_EQ(reader.Wait(), 0);
}

// Each goes on until both have seen enough of the other one's values.
TYPED_TEST(TornTest, SeveralWriters) {
  constexpr size_t kSize = TypeParam::value;
  constexpr uint32_t kWriters = 2;
  auto value = Value<Words<kSize>>::CreateAnonymous();
  std::vector<Child> writers;
  for (uint32_t i = 0; i < kWriters; ++i) {
    writers.push_back(Child::Fork([&, i](Child::Side) {
      const auto is_torn = [&, i] {
        for (uint32_t n = 1, others = 0; this->race_.content < kWriters; ++n) {
          if (!value->Store(Filled<kSize>(n * kWriters + i)).ok()) return true;
          ++this->race_.stores;
          const auto words = value->Load();
          if (!words.ok() || !IsWhole(*words)) return true;
          if ((*words)[0] % kWriters != i && ++others == kDifferent / 5) {
            ++this->race_.content;
          }
        }
        return false;
      };
      if (!is_torn()) return 0;
      this->race_.content = kWriters;
      return 1;
    }));
  }
  for (Child& writer : writers) EXPECT_EQ(writer.Wait(), 0);
  if (kSize > sizeof(uint64_t)) {
    EXPECT_EQ(value->version(), 1 + this->race_.stores);
  }
}

// A single writer that does nothing else does not starve a reader: while it
// stores, each load gets through.
TEST(ValueTest, ReadersGetThrough) {
  auto value = Value<Words<4096>>::CreateAnonymous();
  Child writer = Child::Fork([&](Child::Side) {
    for (uint32_t n = 1; value->Store(Filled<4096>(n)).ok(); ++n) {
    }
    return 1;
  });
  uint32_t last = 0;
  for (uint32_t different = 0; different < kDifferent;) {
    const auto words = value->Load();
    ASSERT_THAT(words, IsOk());
    ASSERT_TRUE(IsWhole(*words));
    different += (*words)[0] != last ? 1 : 0;
    last = (*words)[0];
  }
}

// Threads that lock and threads that do not; ThreadSanitizer must be content.
TEST(ArrayTest, SnapshotsAreWhole) {
  Array<uint32_t> array = *Array<uint32_t>::CreateAnonymous(257);
  std::vector<std::thread> threads;
  std::atomic<uint32_t> content = 0;
  for (uint32_t i = 0; i < kReaders; ++i) {
    threads.emplace_back([&] {
      uint32_t last = 0;
      for (uint32_t different = 0; different < kDifferent / 5;) {
        const auto copy = array.Snapshot();
        if (!copy.ok()) {
          EXPECT_EQ(copy.status().code(), absl::StatusCode::kUnavailable);
          continue;
        }
        EXPECT_TRUE(IsWhole(*copy));
        EXPECT_GE((*copy)[0], last);
        different += (*copy)[0] != last ? 1 : 0;
        last = (*copy)[0];
      }
      ++content;
    });
  }
  for (uint32_t n = 1; content < kReaders; ++n) {
    auto guard = array.Lock();
    ASSERT_THAT(guard, IsOk());
    for (uint32_t& element : guard->span()) element = n;
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace ipc::shm
