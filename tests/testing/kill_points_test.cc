#include "tests/testing/kill_points.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"
#include "ipc/base/deadline.h"
#include "ipc/base/futex.h"

namespace ipc::testing {
namespace {

struct Shared {
  std::atomic<uint32_t> a, b, c;
};

// Memory that the victim shares with its parent.
class SharedCase : public KillPointCase {
 public:
  SharedCase()
      : shared_(static_cast<Shared*>(
            mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~SharedCase() override { munmap(shared_, sizeof(Shared)); }

 protected:
  Shared* const shared_;
};

class StoresCase : public SharedCase {
 public:
  explicit StoresCase(std::set<std::pair<int, int>>* seen) : seen_(seen) {}
  void Operate() override {
    shared_->a.store(1);
    shared_->b.store(1);
  }
  void Check(const KillPoint&) override {
    seen_->insert({shared_->a.load(), shared_->b.load()});
  }

 private:
  std::set<std::pair<int, int>>* const seen_;
};

// Every state between two stores is seen, and none that cannot be.
TEST(KillPointsTest, SeesEachStateBetweenTwoStores) {
  std::set<std::pair<int, int>> seen;
  const KillPointReport report = KillAtEveryInstruction(
      [&] { return std::make_unique<StoresCase>(&seen); });
  EXPECT_EQ(seen, (std::set<std::pair<int, int>>{{0, 0}, {1, 0}, {1, 1}}));
  EXPECT_GE(report.points, 5);
  EXPECT_EQ(report.asleep, 0);
  EXPECT_EQ(report.completed, 1);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD) << "a victim is left";
}

class CountedCase : public SharedCase {
 public:
  explicit CountedCase(int* last) : last_(last) {}
  // Exactly 200 additions, each of which is a point of its own.
  void Operate() override {
    asm volatile(
        "mov $200, %%ecx\n"
        "1: lock incl %0\n"
        "dec %%ecx\n"
        "jnz 1b\n"
        : "+m"(shared_->a)
        :
        : "rcx", "cc", "memory");
  }
  void Check(const KillPoint& point) override {
    const int count = static_cast<int>(shared_->a.load());
    EXPECT_GE(count, *last_);
    EXPECT_LE(count, *last_ + 1) << "an instruction was left out";
    *last_ = count;
    if (point.completed) {
      EXPECT_EQ(count, 200);
    }
  }

 private:
  int* const last_;
};

TEST(KillPointsTest, LeavesNoInstructionOut) {
  int last = 0;
  const KillPointReport report = KillAtEveryInstruction(
      [&] { return std::make_unique<CountedCase>(&last); });
  EXPECT_EQ(last, 200);
  EXPECT_GE(report.points, 600);
  EXPECT_EQ(report.astray, 0);
}

class SleepCase : public SharedCase {
 public:
  explicit SleepCase(bool may_wake) : may_wake_(may_wake) {}
  void Operate() override {
    shared_->b.store(1);
    while (shared_->a.load() == 0) {
      FutexWait(shared_->a, 0, Deadline::Infinite());
    }
    shared_->c.store(1);
  }
  bool Wake() override {
    if (!may_wake_) return false;
    EXPECT_EQ(shared_->b.load(), 1u);
    EXPECT_EQ(shared_->c.load(), 0u);
    shared_->a.store(1);
    FutexWake(shared_->a, 1);
    return true;
  }
  void Check(const KillPoint& point) override {
    if (point.asleep) {
      EXPECT_EQ(shared_->c.load(), 0u);
    }
    if (point.completed) {
      EXPECT_EQ(shared_->c.load(), 1u);
    }
  }

 private:
  const bool may_wake_;
};

TEST(KillPointsTest, KillsAsleepAndAfterBeingWoken) {
  KillPointReport report =
      KillAtEveryInstruction([] { return std::make_unique<SleepCase>(true); });
  EXPECT_EQ(report.asleep, 1);
  EXPECT_EQ(report.completed, 1);
  const int points = report.points;
  report =
      KillAtEveryInstruction([] { return std::make_unique<SleepCase>(false); });
  EXPECT_EQ(report.asleep, 1);
  EXPECT_EQ(report.completed, 0);
  EXPECT_LT(report.points, points);
}

[[gnu::noinline]] void Touch(std::atomic<uint32_t>* word) {
  word->store(1, std::memory_order_relaxed);
}

// One victim in fifteen goes through its loop more often, like one that spins
// until a time has passed.
class SpinCase : public SharedCase {
 public:
  SpinCase(int number, bool* had_effect)
      : rounds_(number % 15 == 14 ? 12 : 7), had_effect_(had_effect) {}
  void Operate() override {
    for (int i = 0; i < rounds_; ++i) Touch(&shared_->a);
    shared_->b.store(1);
    for (int i = 0; i < 4; ++i) Touch(&shared_->a);
  }
  void Check(const KillPoint& point) override {
    if (point.astray) return;
    const bool has_effect = shared_->b.load() != 0;
    EXPECT_GE(has_effect, *had_effect_) << "this is an earlier point";
    *had_effect_ |= has_effect;
  }

 private:
  const int rounds_;
  bool* const had_effect_;
};

// Where a victim goes another way than the others, it is not taken for one that
// has come as far as they have.
TEST(KillPointsTest, IsNotMisledByALoop) {
  int cases = 0;
  bool had_effect = false;
  const KillPointReport report = KillAtEveryInstruction(
      [&] { return std::make_unique<SpinCase>(cases++, &had_effect); });
  EXPECT_TRUE(had_effect);
  EXPECT_EQ(report.completed, 1);
}

class DoubtfulCase : public StoresCase {
 public:
  DoubtfulCase(std::set<std::pair<int, int>>* seen, std::vector<int>* points)
      : StoresCase(seen), points_(points) {}
  void Check(const KillPoint& point) override {
    StoresCase::Check(point);
    points_->push_back(point.instructions);
  }
  // Of three tries at each point, the first two.
  bool IsInDoubt() const override { return points_->size() % 3 != 0; }

 private:
  std::vector<int>* const points_;
};

TEST(KillPointsTest, PointInDoubtIsTriedAgain) {
  std::set<std::pair<int, int>> seen;
  std::vector<int> points;
  const KillPointReport report = KillAtEveryInstruction(
      [&] { return std::make_unique<DoubtfulCase>(&seen, &points); });
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_EQ(report.completed, 1);
  // Those before the end, and the end.
  ASSERT_EQ(points.size(), 3u * (static_cast<size_t>(report.points) + 1));
  for (size_t i = 0; i < points.size(); ++i) {
    EXPECT_EQ(points[i], points[i - i % 3]);
  }
}

class BadCase : public SharedCase {
 public:
  void Operate() override {
    shared_->a.store(1);
    shared_->b.store(1);
  }
  void Check(const KillPoint&) override {
    EXPECT_EQ(shared_->a.load(), shared_->b.load());
  }
};

// Not every state is good, and the check says so.
TEST(KillPointsTest, SeesTheBadState) {
  ::testing::TestPartResultArray failures;
  {
    ::testing::ScopedFakeTestPartResultReporter reporter(
        ::testing::ScopedFakeTestPartResultReporter::
            INTERCEPT_ONLY_CURRENT_THREAD,
        &failures);
    KillAtEveryInstruction([] { return std::make_unique<BadCase>(); });
  }
  EXPECT_GE(failures.size(), 1);
}

TEST(KillPointsTest, PointNamesTheFunction) {
  KillPoint point;
  point.instructions = 17;
  point.address = reinterpret_cast<uint64_t>(&getpid);
  EXPECT_EQ(point.ToString().find("killed after 17 instructions, at "), 0u);
  EXPECT_NE(point.ToString().find("getpid+0x0"), std::string::npos)
      << point.ToString();
}

class ClockCase : public SharedCase {
 public:
  void Operate() override {
    for (int i = 0; i < 5; ++i) {
      timespec now;
      clock_gettime(CLOCK_MONOTONIC, &now);
      shared_->a.store(static_cast<uint32_t>(i));
    }
  }
  void Check(const KillPoint&) override {}
};

// The way through the kernel's page depends on the time; nobody goes astray.
TEST(KillPointsTest, ALookAtTheClockIsOneInstruction) {
  const KillPointReport report =
      KillAtEveryInstruction([] { return std::make_unique<ClockCase>(); });
  EXPECT_EQ(report.astray, 0);
  EXPECT_EQ(report.completed, 1);
  EXPECT_GE(report.points, 20);
}

// Leaves its parent's heap in another state each time.
class AllocatingCase : public KillPointCase {
 public:
  AllocatingCase() {
    static size_t number = 0;
    ++number;
    for (size_t i = 0; i < number % 13; ++i) {
      kept_.push_back(std::make_unique<char[]>(24 + number * i % 1000));
    }
    for (size_t i = number % 3; i < kept_.size(); i += 2) kept_[i].reset();
  }
  void Operate() override {
    std::vector<std::string> texts;
    for (size_t length = 20; length < 2000; length *= 2) {
      texts.emplace_back(length, 'x');
    }
  }
  void Check(const KillPoint&) override {}

 private:
  std::vector<std::unique_ptr<char[]>> kept_;
};

// What the parent has allocated and freed before misleads nobody.
TEST(KillPointsTest, TheHeapIsTheSameEachTime) {
  const KillPointReport report =
      KillAtEveryInstruction([] { return std::make_unique<AllocatingCase>(); });
  EXPECT_EQ(report.astray, 0);
  EXPECT_EQ(report.completed, 1);
  EXPECT_GE(report.points, 100);
}

class PrintCase : public StoresCase {
 public:
  using StoresCase::StoresCase;
  void Operate() override {
    shared_->a.store(1);
    Print();
    shared_->b.store(1);
  }
  // Takes the library some thousands of instructions, whatever the processor
  // can do; ours, unoptimized, are 250.
  static void Print() {
    char text[64];
    snprintf(text, sizeof(text), "%.17g %.17g", 0.1, 0.2);
  }
};

// What our own code does is seen as before.
TEST(KillPointsTest, ALibraryMayBeCoarse) {
  PrintCase::Print();  // so that the function has been looked up
  std::set<std::pair<int, int>> seen;
  const auto make = [&] { return std::make_unique<PrintCase>(&seen); };
  const KillPointReport all = KillAtEveryInstruction(make);
  seen.clear();
  const KillPointReport some =
      KillAtEveryInstruction(make, 1, {.library = "libc.so", .stride = 100});
  EXPECT_EQ(seen, (std::set<std::pair<int, int>>{{0, 0}, {1, 0}, {1, 1}}));
  EXPECT_EQ(some.completed, 1);
  EXPECT_GT(some.points, all.points / 100);
  EXPECT_LT(some.points, all.points / 10) << "of " << all.points;
}

class LoopCase : public StoresCase {
 public:
  using StoresCase::StoresCase;
  void Operate() override {
    shared_->a.store(1);
    for (int i = 0; i < 1000; ++i) shared_->c.store(1);
    shared_->b.store(1);
  }
};

// What comes before and after it is seen as before.
TEST(KillPointsTest, ALoopMayBeCoarse) {
  std::set<std::pair<int, int>> seen;
  const KillPointReport report =
      KillAtEveryInstruction([&] { return std::make_unique<LoopCase>(&seen); },
                             1, {.passes = 5, .stride = 500});
  EXPECT_EQ(seen, (std::set<std::pair<int, int>>{{0, 0}, {1, 0}, {1, 1}}));
  EXPECT_EQ(report.completed, 1);
  EXPECT_GT(report.points, 10);
  EXPECT_LT(report.points, 1000) << "one for each time round, or more";
}

class ThreadCase : public SharedCase {
 public:
  explicit ThreadCase(std::vector<std::array<uint32_t, 3>>* seen)
      : seen_(seen) {}
  void Operate() override {
    shared_->a.store(1);
    std::thread thread([this] {
      shared_->b.store(1);
      shared_->b.store(2);
    });
    thread.join();
    shared_->c.store(1);
  }
  void Check(const KillPoint&) override {
    seen_->push_back({shared_->a.load(), shared_->b.load(), shared_->c.load()});
  }

 private:
  std::vector<std::array<uint32_t, 3>>* const seen_;
};

// It is killed at every instruction of the other thread, too, and in one order.
TEST(KillPointsTest, StepsThroughAThread) {
  std::vector<std::array<uint32_t, 3>> seen;
  const KillPointReport report = KillAtEveryInstruction(
      [&] { return std::make_unique<ThreadCase>(&seen); });
  EXPECT_EQ(report.astray, 0);
  EXPECT_EQ(report.asleep, 0);
  EXPECT_EQ(report.completed, 1);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  EXPECT_THAT(seen, ::testing::ElementsAre(std::array<uint32_t, 3>{0, 0, 0},
                                           std::array<uint32_t, 3>{1, 0, 0},
                                           std::array<uint32_t, 3>{1, 1, 0},
                                           std::array<uint32_t, 3>{1, 2, 0},
                                           std::array<uint32_t, 3>{1, 2, 1}));
}

class TwoThreadsCase : public SharedCase {
 public:
  void Operate() override {
    for (uint32_t i = 1; i <= 2; ++i) {
      std::thread([this] { shared_->a.fetch_add(1); }).join();
      shared_->b.store(i);
    }
  }
  void Check(const KillPoint&) override {
    EXPECT_GE(shared_->a.load(), shared_->b.load());
  }
};

// Each has its turn; the call that the first one's starter sleeps in is passed
// again for the second one.
TEST(KillPointsTest, StepsThroughOneThreadAfterTheOther) {
  const KillPointReport report =
      KillAtEveryInstruction([] { return std::make_unique<TwoThreadsCase>(); });
  EXPECT_EQ(report.astray, 0);
  EXPECT_EQ(report.completed, 1);
  EXPECT_GT(report.points, 1000);
}

// Its thread sleeps until somebody wakes it, twice.
class SleepingThreadCase : public SharedCase {
 public:
  void Operate() override {
    std::thread thread([this] {
      for (std::atomic<uint32_t>* const word : {&shared_->a, &shared_->b}) {
        while (word->load() == 0) {
          (void)FutexWait(*word, 0, Deadline::Infinite());
        }
      }
    });
    thread.join();
    shared_->c.store(1);
  }
  bool Wake() override {
    std::atomic<uint32_t>& next =
        shared_->a.load() == 0 ? shared_->a : shared_->b;
    next.store(1);
    FutexWake(next, 1);
    return true;
  }
  void Check(const KillPoint& point) override {
    if (point.completed) {
      EXPECT_EQ(shared_->c.load(), 1u);
    }
    EXPECT_LE(shared_->c.load(), shared_->b.load());
    EXPECT_LE(shared_->b.load(), shared_->a.load());
  }
};

TEST(KillPointsTest, AThreadMaySleepMoreThanOnce) {
  const KillPointReport report = KillAtEveryInstruction(
      [] { return std::make_unique<SleepingThreadCase>(); });
  EXPECT_EQ(report.astray, 0);
  EXPECT_EQ(report.asleep, 1);
  EXPECT_EQ(report.completed, 1);
}

// Its starter sleeps for something else than its end.
class DetachedThreadCase : public SharedCase {
 public:
  void Operate() override {
    std::thread([this] { shared_->a.store(1); }).detach();
    while (shared_->b.load() == 0) {
      (void)FutexWait(shared_->b, 0, Deadline::Infinite());
    }
    shared_->c.store(1);
  }
  bool Wake() override {
    EXPECT_EQ(shared_->a.load(), 1u);
    shared_->b.store(1);
    FutexWake(shared_->b, 1);
    return true;
  }
  void Check(const KillPoint&) override {
    EXPECT_LE(shared_->c.load(), shared_->b.load());
    EXPECT_LE(shared_->b.load(), shared_->a.load());
  }
};

TEST(KillPointsTest, AStarterMaySleepForSomethingElse) {
  const KillPointReport report = KillAtEveryInstruction(
      [] { return std::make_unique<DetachedThreadCase>(); });
  EXPECT_EQ(report.astray, 0);
  EXPECT_EQ(report.asleep, 1);
  EXPECT_EQ(report.completed, 1);
}

// A victim that is killed in its thread leaves nothing.
TEST(KillPointsTest, AThreadOfAVictimIsReaped) {
  std::vector<std::array<uint32_t, 3>> seen;
  KillAtEveryInstruction([&] { return std::make_unique<ThreadCase>(&seen); },
                         101);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG | __WALL), -1);
  EXPECT_EQ(errno, ECHILD);
}

}  // namespace
}  // namespace ipc::testing
