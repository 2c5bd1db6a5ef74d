// SIGKILL at random and at every instruction: those who are left must not hang,
// and must not see half a value.
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/array.h"
#include "ipc/shm/value.h"
#include "tests/ipc/shm/child.h"
#include "tests/ipc/shm/status_matchers.h"

namespace ipc::shm {
namespace {

// Sanitizers make a fork some ten times slower, and operations longer.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kKills = 150;
constexpr int kStride = 37;
#else
constexpr int kKills = 3000;
constexpr int kStride = 1;
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

// Runs `operation` in a child and kills it after `steps` instructions. Returns
// false if it was over before.
template <typename Operation>
bool KillAfter(int steps, Operation operation) {
  Child victim = Child::Fork([&](Child::Side) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    operation();
    return 0;
  });
  int status = 0;
  EXPECT_EQ(waitpid(victim.pid(), &status, 0), victim.pid());
  EXPECT_TRUE(WIFSTOPPED(status));
  for (int i = 0; i < steps; ++i) {
    ptrace(PTRACE_SINGLESTEP, victim.pid(), nullptr, nullptr);
    siginfo_t info = {};
    waitid(P_PID, victim.pid(), &info, WSTOPPED | WEXITED | WNOWAIT);
    if (info.si_code == CLD_EXITED) return false;
    waitpid(victim.pid(), &status, 0);
  }
  victim.Kill();
  return true;
}

TEST(KillTest, AWriterOfALargeValueAtEveryInstruction) {
  auto value = Value<Triple>::CreateAnonymous({});
  uint64_t n = 0;
  bool killed = true;
  int steps = 0;
  for (; killed; steps += kStride) {
    ++n;
    killed = KillAfter(steps, [&] {
      value->Store(Filled<Triple>(2 * n)).IgnoreError();
      value->Store(Filled<Triple>(2 * n)).IgnoreError();
    });
    const auto after = value->Load();
    ASSERT_THAT(after, IsOk());
    ASSERT_TRUE(IsWhole(*after)) << "after " << steps << " steps";
    ASSERT_THAT((*after)[0], ::testing::AnyOf(2 * n, 2 * n - 1));
    ASSERT_THAT(value->Store(Filled<Triple>(2 * n + 1), absl::Minutes(1)),
                IsOk());
    ASSERT_EQ((*value->Load())[0], 2 * n + 1);
  }
  printf("killed at %d instructions\n", steps / kStride - 1);
}

TEST(KillTest, AWriterOfASmallValueAtEveryInstruction) {
  auto value = Value<uint64_t>::CreateAnonymous(0);
  uint64_t n = 0;
  bool killed = true;
  int steps = 0;
  for (; killed; steps += kStride) {
    const uint64_t before = value->version();
    n += 2;
    killed = KillAfter(steps, [&] { value->Store(n).IgnoreError(); });
    const uint64_t after = *value->Load();
    ASSERT_THAT(after, ::testing::AnyOf(n, n - 1));
    if (after == n) {
      // Whether or not it came to say so.
      ASSERT_THAT(value->WaitForChange(before, absl::Minutes(1)), IsOk());
    }
    ASSERT_THAT(value->Store(n + 1), IsOk());
  }
  printf("killed at %d instructions\n", steps / kStride - 1);
}

TEST(KillTest, AHolderOfAnArrayAtEveryInstruction) {
  Array<uint64_t> array = *Array<uint64_t>::CreateAnonymous(3);
  uint64_t n = 0;
  bool killed = true;
  int steps = 0;
  for (; killed; steps += kStride) {
    ++n;
    killed = KillAfter(steps, [&] {
      auto guard = array.Lock();
      for (uint64_t& element : guard->span()) element = n;
    });
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
  printf("killed at %d instructions\n", steps / kStride - 1);
}

// The heir of a dead holder dies too, at each instruction of inheriting.
TEST(KillTest, AnHeirAtEveryInstruction) {
  Array<uint64_t> array = *Array<uint64_t>::CreateAnonymous(3);
  bool killed = true;
  int steps = 0;
  for (; killed; steps += 1 + kStride / 2) {
    Child holder = Child::Fork([&](Child::Side side) {
      const auto guard = array.Lock();
      side.Tell();
      side.Hear();
      return 0;
    });
    ASSERT_TRUE(holder.Hear());
    holder.Kill();
    killed = KillAfter(steps, [&] {
      auto guard = array.Lock();
      guard->MarkConsistent();
    });
    auto guard = array.Lock(absl::Minutes(1));
    ASSERT_THAT(guard, IsOk());
    if (killed && steps == 0) {
      ASSERT_TRUE(guard->previous_owner_died());
    }
    guard->MarkConsistent();
  }
  printf("killed at %d instructions\n", steps / (1 + kStride / 2) - 1);
}

}  // namespace
}  // namespace ipc::shm
