// SIGKILL at random and at every instruction: those who are left must not hang,
// and must not see half a value.
#include <signal.h>
#include <sys/ptrace.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/memory.h"
#include "ipc/shm/array.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/value.h"
#include "tests/ipc/shm/child.h"
#include "tests/ipc/shm/status_matchers.h"

namespace ipc::shm {
namespace {

// Sanitizers make a fork some ten times slower, and operations longer.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kKills = 150;
#else
constexpr int kKills = 3000;
#endif

using Block = std::array<uint64_t, 512>;
using Triple = std::array<uint64_t, 3>;

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

// The dead leave behind what they have stored, and nothing of what they were
// about to do: to be killed at any of the instructions between two stores to
// the segment is the same. So a victim is single-stepped, the segment compared
// after each step, and the victim killed after its first change, its second,
// and so on until it lives to the end.
class Stepper {
 public:
  explicit Stepper(const Segment& segment)
      // With the header, where the participants are.
      : mapping_(*Mapping::Create(segment.fd(), *SizeOfMemory(segment.fd()))) {}

  // Runs `operation` in a child and kills it at change number `changes`, or
  // before its first instruction if that is 0. Returns false if it did not come
  // to that and exited.
  template <typename Operation>
  bool KillAfter(int changes, Operation operation) {
    Child victim = Child::Fork([&](Child::Side) {
      ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      raise(SIGSTOP);
      operation();
      return 0;
    });
    victim.AwaitStop();
    std::string before = Bytes();
    while (changes > 0) {
      if (!victim.Step()) return false;
      ++steps_;
      if (Changed(before)) {
        before = Bytes();
        --changes;
      }
    }
    victim.Kill();
    ++kills_;
    return true;
  }

  int kills() const { return kills_; }
  ~Stepper() { printf("%d kills, %ld instructions\n", kills_, steps_); }

 private:
  std::string Bytes() const {
    return std::string(reinterpret_cast<const char*>(mapping_.data()),
                       mapping_.size());
  }
  bool Changed(const std::string& before) const {
    return memcmp(before.data(), mapping_.data(), before.size()) != 0;
  }

  const Mapping mapping_;
  int kills_ = 0;
  long steps_ = 0;
};

TEST(KillTest, AWriterOfALargeValueAtEveryInstruction) {
  auto value = Value<Triple>::CreateAnonymous(Filled<Triple>(1));
  Stepper stepper(value->segment());
  uint64_t n = 1;
  const auto store_twice = [&] {
    value->Store(Filled<Triple>(2 * n)).IgnoreError();
    value->Store(Filled<Triple>(2 * n)).IgnoreError();
  };
  for (int i = 0; stepper.KillAfter(i, store_twice); ++i, ++n) {
    const auto after = value->Load();
    ASSERT_THAT(after, IsOk());
    ASSERT_TRUE(IsWhole(*after)) << "after " << i << " changes";
    ASSERT_THAT((*after)[0], ::testing::AnyOf(2 * n, 2 * n - 1));
    ASSERT_THAT(value->Store(Filled<Triple>(2 * n + 1), absl::Minutes(1)),
                IsOk());
    ASSERT_EQ((*value->Load())[0], 2 * n + 1);
  }
  // Attach, and twice: lock, at least two for the words, version, unlock.
  EXPECT_GE(stepper.kills(), 1 + 1 + 2 * 5);
}

TEST(KillTest, AWriterOfASmallValueAtEveryInstruction) {
  auto value = Value<uint64_t>::CreateAnonymous(1);
  Stepper stepper(value->segment());
  uint64_t n = 1;
  const auto store = [&] { value->Store(2 * n).IgnoreError(); };
  for (int i = 0;; ++i, ++n) {
    const uint64_t before = value->version();
    if (!stepper.KillAfter(i, store)) break;
    const uint64_t after = *value->Load();
    ASSERT_THAT(after, ::testing::AnyOf(2 * n, 2 * n - 1));
    if (after == 2 * n) {
      // Whether or not it came to say so.
      ASSERT_THAT(value->WaitForChange(before, absl::Minutes(1)), IsOk());
    }
    ASSERT_THAT(value->Store(2 * n + 1), IsOk());
  }
  EXPECT_EQ(stepper.kills(), 1 + 1) << "the value";
}

TEST(KillTest, AHolderOfAnArrayAtEveryInstruction) {
  Array<uint64_t> array = *Array<uint64_t>::CreateAnonymous(3);
  Stepper stepper(array.segment());
  uint64_t n = 1;
  const auto fill = [&] {
    auto guard = array.Lock();
    for (uint64_t& element : guard->span()) element = n;
  };
  for (int i = 0; stepper.KillAfter(i, fill); ++i, ++n) {
    const auto snapshot = array.Snapshot();
    if (snapshot.ok()) {
      ASSERT_TRUE(IsWhole(*snapshot));
    }
    auto guard = array.Lock(absl::Minutes(1));
    ASSERT_THAT(guard, IsOk());
    ASSERT_TRUE(guard->previous_owner_died() || IsWhole(guard->span()));
    for (uint64_t& element : guard->span()) element = n;
    guard->MarkConsistent();
  }
  // Attach, lock, sequence, three elements, sequence, unlock.
  EXPECT_GE(stepper.kills(), 1 + 8);
}

// The heir of a dead holder dies too, at each step of inheriting.
TEST(KillTest, AnHeirAtEveryInstruction) {
  Array<uint64_t> array = *Array<uint64_t>::CreateAnonymous(3);
  Stepper stepper(array.segment());
  const auto inherit = [&] {
    auto guard = array.Lock();
    for (uint64_t& element : guard->span()) element = 2;
    guard->MarkConsistent();
  };
  for (int i = 0;; ++i) {
    Child holder = Child::Fork([&](Child::Side side) {
      const auto guard = array.Lock();
      guard->span()[0] = 1;
      side.Tell();
      side.Hear();
      return 0;
    });
    ASSERT_TRUE(holder.Hear());
    holder.Kill();
    const bool killed = stepper.KillAfter(i, inherit);
    auto guard = array.Lock(absl::Minutes(1));
    ASSERT_THAT(guard, IsOk());
    ASSERT_TRUE(guard->previous_owner_died() || IsWhole(guard->span()));
    ASSERT_TRUE(guard->previous_owner_died() || guard->span()[0] == 2);
    for (uint64_t& element : guard->span()) element = 0;
    guard->MarkConsistent();
    if (!killed) break;
  }
  // Attach; the participant is dead, then free; lock, three elements, sequence,
  // unlock.
  EXPECT_GE(stepper.kills(), 1 + 9);
}

}  // namespace
}  // namespace ipc::shm
