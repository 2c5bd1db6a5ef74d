// KillAtEveryInstruction for many operations of one library: what each needs
// before and after, told as a table.
//
//   struct World : KillWorld { Mutex mutex; };  // new for each kill
//   INSTANTIATE_TEST_SUITE_P(Operations, MutexKillTest, ::testing::Values(
//       KillOperation<World>{
//           .name = "Lock",
//           .operate = [](World& world) { world.mutex.lock(); },
//           .check = [](World& world, const KillPoint&, Survival&) {
//             EXPECT_TRUE(world.mutex.try_lock()) << "it was inherited";
//           }}));
//   TEST_P(MutexKillTest, Survived) { CheckSurvival(GetParam(), kTick); }
//
// Without -c opt an operation has several times as many instructions, and only
// every eleventh is a point.
#ifndef TESTS_TESTING_KILL_OPERATIONS_H_
#define TESTS_TESTING_KILL_OPERATIONS_H_

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/testing/kill_points.h"

namespace ipc::testing {

#ifdef __OPTIMIZE__
inline constexpr int kKillStride = 1;
#else
inline constexpr int kKillStride = 11;
#endif

// How long checks take that have a limit. A machine that does something else
// for a while is no hang, so one that takes longer is made again; who hangs
// does so each time.
class Promptness {
 public:
  // Of one check. Returns whether it is to be made again.
  bool IsInDoubt(absl::Duration took, absl::Duration limit) {
    slowest = std::max(slowest, took);
    if (took <= limit) {
      in_a_row_ = 0;
      return false;
    }
    slow += in_a_row_ == 0 ? 1 : 0;
    if (++in_a_row_ < kTries) return true;
    ADD_FAILURE() << "went on only after " << took << " instead of " << limit
                  << ", the last time of " << kTries;
    return false;
  }

  int slow = 0;  // at so many points a check has taken too long
  absl::Duration slowest;

 private:
  // If a busy machine delays every fifth one, so many in a row are one in ten
  // million.
  static constexpr int kTries = 10;

  int in_a_row_ = 0;
};

// What the survivors saw of an operation, over all its points.
struct Survival {
  // For a check that found the operation `done` or not. Its commit is one
  // instruction: what it has done once stays done.
  void Effect(const KillPoint& point, bool done) {
    EXPECT_TRUE(done || !point.completed);
    // Completed is the last one, or one that finds the way.
    if (IsOnAnotherWay(point) || point.completed) return;
    EXPECT_FALSE(done && point.instructions == 0);
    EXPECT_GE(done, had_effect);
    had_effect |= done;
  }

  // For a check that was `told` of the death, or not, of one who takes a thing
  // and gives it back, each by one instruction. In between somebody has to be
  // told, and neither before nor after.
  void Told(const KillPoint& point, bool is_told) {
    told += is_told ? 1 : 0;
    EXPECT_FALSE(is_told && point.completed) << "nobody died with it";
    if (IsOnAnotherWay(point) || point.asleep || point.completed) return;
    EXPECT_FALSE(is_told && told_ended) << "it was given back before";
    told_ended |= !is_told && was_told;
    was_told = is_told;
  }

  // One point tells of the next only on the same way: after one that went
  // astray the numbers may mean other instructions, and where others had the
  // time to wake by their tick (see `late`) they may have changed it.
  bool IsOnAnotherWay(const KillPoint& point) {
    if (point.astray) had_effect = was_told = told_ended = false;
    return point.astray || late;
  }

  bool late = false;  // the point took longer than a park tick
  int times_late = 0;
  bool had_effect = false;
  int told = 0;  // how often somebody was told of the death, for the check
  bool was_told = false;    // at the point before
  bool told_ended = false;  // somebody was, and then nobody any more
};

// What an operation is done to. A World hides what it has to do more.
struct KillWorld {
  // In the victim, before all else.
  void Attach() {}
  // In the parent, after the kill and before the check.
  void Settle() {}
};

template <typename World>
struct KillOperation {
  std::string name;
  // In the parent, before the fork.
  std::function<void(World&)> arrange = nullptr;
  // In the victim: before the first instruction that counts; and what it is
  // killed in.
  std::function<void(World&)> prepare = nullptr;
  std::function<void(World&)> operate;
  // In the parent while the victim sleeps; and after it was killed, which is to
  // take two park ticks at most.
  std::function<void(World&)> wake = nullptr;
  std::function<void(World&, const KillPoint&, Survival&)> check;
  // Whether somebody has to be told of the death, at some point.
  bool tells = false;
  // Of a long one.
  Coarse coarse = {};

  friend void PrintTo(const KillOperation& operation, std::ostream* out) {
    *out << operation.name;
  }
};

// Kills it everywhere and prints what came of it.
template <typename World>
void CheckSurvival(const KillOperation<World>& operation, absl::Duration tick) {
  class Case : public KillPointCase {
   public:
    Case(const KillOperation<World>& operation, absl::Duration tick,
         Survival* survival, Promptness* promptness)
        : operation_(operation),
          tick_(tick),
          survival_(survival),
          promptness_(promptness) {
      if (operation_.arrange != nullptr) operation_.arrange(world_);
    }
    void Prepare() override {
      world_.Attach();
      if (operation_.prepare != nullptr) operation_.prepare(world_);
    }
    void Operate() override { operation_.operate(world_); }
    bool Wake() override {
      if (operation_.wake == nullptr) return false;
      operation_.wake(world_);
      return true;
    }
    void Check(const KillPoint& point) override {
      world_.Settle();
      const absl::Time start = absl::Now();
      survival_->late = start - began_ >= tick_;
      survival_->times_late += survival_->late ? 1 : 0;
      operation_.check(world_, point, *survival_);
      // Two ticks, and what a loaded machine takes besides.
      is_in_doubt_ = promptness_->IsInDoubt(absl::Now() - start,
                                            2 * tick_ + absl::Milliseconds(10));
    }
    bool IsInDoubt() const override { return is_in_doubt_; }

   private:
    const KillOperation<World>& operation_;
    const absl::Duration tick_;
    Survival* const survival_;
    Promptness* const promptness_;
    const absl::Time began_ = absl::Now();
    bool is_in_doubt_ = false;
    World world_;
  };

  Survival survival;
  Promptness promptness;
  const KillPointReport report = KillAtEveryInstruction(
      [&] {
        return std::make_unique<Case>(operation, tick, &survival, &promptness);
      },
      kKillStride, operation.coarse);
  const std::string less_often =
      operation.coarse.stride == 1
          ? ""
          : absl::StrCat(", every ", operation.coarse.stride,
                         ". of those that came ", operation.coarse.passes,
                         " times before");
  printf(
      "%s: %d kill points, every %d. instruction%s (%d asleep, %d missed, "
      "%d late), %d failures; told %d times; the survivor went on within %s, "
      "over two ticks and 10 ms %d times\n",
      operation.name.c_str(), report.points, kKillStride, less_often.c_str(),
      report.asleep, report.astray, survival.times_late,
      ::testing::Test::HasFailure() ? 1 : 0, survival.told,
      absl::FormatDuration(promptness.slowest).c_str(), promptness.slow);
  EXPECT_GT(report.points, kKillStride == 1 ? 10 : 2);
  EXPECT_EQ(report.completed, 1);
  // Else it would not be seen whether what is done stays done.
  EXPECT_LT(survival.times_late, report.points);
  EXPECT_LE(promptness.slow, report.points / 20 + 2);
  // On a loaded machine a sleeper may wake by its tick, and then go another way
  // than the others.
  if (operation.tells && report.astray == 0) {
    EXPECT_GT(survival.told, 0);
  }
}

}  // namespace ipc::testing

#endif  // TESTS_TESTING_KILL_OPERATIONS_H_
