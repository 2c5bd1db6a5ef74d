// SIGKILL at random: those who are left must not hang, and must not see half a
// value. At every instruction: see data_kill_test.cc.
#include <signal.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>

#include "absl/base/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/array.h"
#include "ipc/shm/value.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

// Sanitizers make a fork some ten times slower, and operations longer.
#if defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_ADDRESS_SANITIZER)
constexpr int kKills = 150;
#else
constexpr int kKills = 3000;
#endif

using Block = std::array<uint64_t, 512>;

template <typename T>
T Filled(uint64_t n) {
  T words;
  words.fill(n);
  return words;
}

template <typename T>
bool IsWhole(const T& words) {
  for (const uint64_t word : words) {
    if (word != words[0]) return false;
  }
  return true;
}

// Up to a fifth of a millisecond, a matter of luck, on purpose.
class RandomMoment {
 public:
  RandomMoment() : seed_(std::random_device()()), random_(seed_) {
    printf("seed %u\n", seed_);
  }
  void Pass() {
    const auto end = std::chrono::steady_clock::now() +
                     std::chrono::nanoseconds(random_() % 200'000);
    while (std::chrono::steady_clock::now() < end) {
    }
  }

 private:
  const unsigned seed_;
  std::minstd_rand random_;
};

TEST(KillTest, WritersOfAValueAtRandom) {
  auto value = Value<Block>::CreateAnonymous({});
  // Others that must come through: one reads, one writes.
  Child reader = Child::Fork([&](Child::Side) {
    while (true) {
      const auto block = value->Load();
      if (!block.ok() || !IsWhole(*block)) return 1;
      if ((*block)[0] == UINT64_MAX) return 0;
    }
  });
  Child writer = Child::Fork([&](Child::Side side) {
    for (int i = 0; i < kKills; ++i) {
      if (!side.Hear()) return 1;
      if (!value->Store(Filled<Block>(i), absl::Minutes(1)).ok()) return 2;
      if (!side.Tell()) return 3;
    }
    return 0;
  });
  RandomMoment moment;
  for (int i = 0; i < kKills; ++i) {
    Child victim = Child::Fork([&](Child::Side side) {
      side.Tell();
      for (uint64_t n = 0; value->Store(Filled<Block>(n)).ok(); ++n) {
      }
      return 1;
    });
    ASSERT_TRUE(victim.Hear());
    moment.Pass();
    victim.Kill();
    ASSERT_TRUE(writer.Tell());
    ASSERT_TRUE(writer.Hear());
    const auto block = value->Load();
    ASSERT_THAT(block, IsOk());
    ASSERT_TRUE(IsWhole(*block));
    ASSERT_EQ((*block)[0], static_cast<uint64_t>(i)) << "not the last stored";
  }
  EXPECT_EQ(writer.Wait(), 0);
  ASSERT_THAT(value->Store(Filled<Block>(UINT64_MAX)), IsOk());
  EXPECT_EQ(reader.Wait(), 0);
}

TEST(KillTest, HoldersOfAnArrayAtRandom) {
  Array<uint64_t> array = *Array<uint64_t>::CreateAnonymous(512);
  RandomMoment moment;
  int told = 0;
  for (int i = 0; i < kKills; ++i) {
    Child victim = Child::Fork([&](Child::Side side) {
      side.Tell();
      for (uint64_t n = 0;; ++n) {
        auto guard = array.Lock();
        if (!guard.ok()) return 1;
        for (uint64_t& element : guard->span()) element = n;
      }
    });
    ASSERT_TRUE(victim.Hear());
    moment.Pass();
    victim.Kill();
    auto guard = array.Lock(absl::Minutes(1));
    ASSERT_THAT(guard, IsOk());
    if (guard->previous_owner_died()) {
      ++told;
      for (uint64_t& element : guard->span()) element = 0;
      guard->MarkConsistent();
    } else {
      ASSERT_TRUE(IsWhole(guard->span())) << "died at work, and nobody told";
    }
  }
  printf("%d of %d died with the lock\n", told, kKills);
  EXPECT_GT(told, 0);
}

}  // namespace
}  // namespace ipc::shm
