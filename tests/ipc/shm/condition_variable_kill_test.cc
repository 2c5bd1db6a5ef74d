// One that passes on the notification of a dead one is killed at it: another
// one returns nevertheless.
//
//   bazel test -c opt //tests/ipc/shm:condition_variable_kill_test
#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/participants.h"
#include "ipc/shm/condition_variable.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/segment.h"
#include "tests/testing/child.h"
#include "tests/testing/kill_points.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;
using testing::KillAtEveryInstruction;
using testing::KillPoint;
using testing::KillPointCase;
using testing::KillPointReport;

constexpr absl::Duration kPatience = absl::Seconds(20);
// It takes tens of thousands of instructions, as it looks at each place and
// asks who is alive; and thousands while the notification is under way.
constexpr int kStride = 97;

class PassOnCase : public KillPointCase {
 public:
  PassOnCase() {
    Child notified = Sleeper();
    next_.emplace(Sleeper());
    // Or it would see to it itself.
    next_->Stop();
    const std::lock_guard<Mutex> lock(mutex_);
    EXPECT_THAT(condition_.Notify(), IsOkAndHolds(1u));
    notified.Kill();
    // No other place is free: whoever comes has to look for the dead.
    const Participant self = *segment_.Self();
    auto& header = *reinterpret_cast<internal::ConditionVariableHeader*>(
        segment_.bytes().data() + 64);
    for (internal::Waiter& waiter : header.waiters) {
      if (waiter.word != 0) continue;
      constexpr uint64_t kClaimed = 1;
      waiter.word = uint64_t{self.epoch} << 32 |
                    (uint64_t{self.index} + 1) << 2 | kClaimed;
    }
    header.waiter_end = ConditionVariable::kMaxWaiters;
  }

  void Prepare() override {
    (void)segment_.Self();
    mutex_.lock();
  }
  void Operate() override {
    (void)condition_.Wait(mutex_, absl::ZeroDuration());
  }
  void Check(const KillPoint& point) override {
    next_->Continue();
    EXPECT_EQ(next_->Wait(), 0) << point.ToString();
  }

 private:
  Child Sleeper() {
    Child child = Child::Fork([this](Child::Side side) {
      const std::lock_guard<Mutex> lock(mutex_);
      side.Tell();
      return condition_.Wait(mutex_, kPatience).ok() ? 0 : 1;
    });
    EXPECT_TRUE(child.Hear());
    // Once it has given the mutex back it has its place.
    { const std::lock_guard<Mutex> lock(mutex_); }
    child.AwaitSleep();
    return child;
  }

  Segment segment_ = *Segment::CreateAnonymous(1 << 14);
  Mutex mutex_ = *Mutex::Attach(segment_, 0);
  ConditionVariable condition_ = *ConditionVariable::Attach(segment_, 64);
  std::optional<Child> next_;
};

TEST(ConditionVariableKillTest, PassingOn) {
  const KillPointReport report = KillAtEveryInstruction(
      [] { return std::make_unique<PassOnCase>(); }, kStride);
  printf("%d kill points, every %d. instruction (%d missed)\n", report.points,
         kStride, report.astray);
  EXPECT_GT(report.points, 100);
  EXPECT_EQ(report.completed, 1);
}

}  // namespace
}  // namespace ipc::shm
