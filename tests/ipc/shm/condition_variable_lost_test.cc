// A notification that nobody gets, or the wrong one.
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/deadline.h"
#include "ipc/base/participants.h"
#include "ipc/shm/condition_variable.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/recursive_mutex.h"
#include "ipc/shm/robust_lock.h"
#include "ipc/shm/segment.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace {

// What the wall clock has been set forward by.
std::atomic<time_t> wall_clock_skew = 0;

}  // namespace

extern "C" int SkewedClock(clockid_t clock, timespec* time) noexcept {
  const int result = static_cast<int>(syscall(SYS_clock_gettime, clock, time));
  if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += wall_clock_skew;
  return result;
}
// Instead of libc's.
extern "C" int clock_gettime(clockid_t, timespec*) noexcept
    __attribute__((alias("SkewedClock")));

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

template <typename M>
class ConditionVariableLostTest : public ::testing::Test {
 protected:
  // Waits once, and exits with the code of the Status. Sleeps already.
  Child Sleeper(absl::Duration timeout = kPatience) {
    Child child = Child::Fork([this, timeout](Child::Side side) {
      const std::lock_guard<M> lock(mutex_);
      side.Tell();
      return static_cast<int>(condition_.Wait(mutex_, timeout).code());
    });
    EXPECT_TRUE(child.Hear());
    // Once it has given the mutex back it has its place.
    { const std::lock_guard<M> lock(mutex_); }
    child.AwaitSleep();
    return child;
  }
  // Until somebody sleeps until the mutex is free.
  void AwaitOneThatWaitsForTheMutex() const {
    const auto& word =
        reinterpret_cast<const internal::RobustLock*>(
            segment_.bytes().data() + offsetof(internal::MutexHeader, lock))
            ->word;
    while ((word.load() & internal::RobustLock::kWaiters) == 0) {
      std::this_thread::yield();
    }
  }

  Segment segment_ = *Segment::CreateAnonymous(1 << 16);
  M mutex_ = *M::Attach(segment_, 0);
  ConditionVariable condition_ = *ConditionVariable::Attach(segment_, 64);
};
static_assert(offsetof(internal::MutexHeader, lock) ==
              offsetof(internal::RecursiveMutexHeader, lock));

using BothMutexes = ::testing::Types<Mutex, RecursiveMutex>;
TYPED_TEST_SUITE(ConditionVariableLostTest, BothMutexes);

// One who is notified waits for the mutex, which its notifier still has, and is
// killed there. It has not returned, so the next one does.
TYPED_TEST(ConditionVariableLostTest, KilledWhileItWaitsForTheMutex) {
  Child first = this->Sleeper();
  Child second = this->Sleeper();
  {
    const std::lock_guard<TypeParam> lock(this->mutex_);
    ASSERT_THAT(this->condition_.Notify(), IsOkAndHolds(1u));
    this->AwaitOneThatWaitsForTheMutex();
    first.Kill();
  }
  EXPECT_EQ(second.Wait(), 0);
}

// Who came after the notification is not meant by it, even if the one that is
// has died.
TYPED_TEST(ConditionVariableLostTest, NotForOneThatCameLater) {
  Child first = this->Sleeper();
  Child late = [&] {
    const std::lock_guard<TypeParam> lock(this->mutex_);
    EXPECT_THAT(this->condition_.Notify(), IsOkAndHolds(1u));
    this->AwaitOneThatWaitsForTheMutex();
    first.Stop();
    return Child::Fork([this](Child::Side side) {
      const std::lock_guard<TypeParam> lock(this->mutex_);
      side.Tell();
      return static_cast<int>(
          this->condition_.Wait(this->mutex_, absl::Milliseconds(100)).code());
    });
  }();
  ASSERT_TRUE(late.Hear());
  first.Kill();
  EXPECT_EQ(late.Wait(), static_cast<int>(absl::StatusCode::kDeadlineExceeded));
}

// Those who come back while NotifyAll is at it, without the mutex, are not
// notified again.
TYPED_TEST(ConditionVariableLostTest, NotifyAllNotifiesEachOnce) {
  constexpr uint32_t kWaiters = 3;
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kWaiters; ++i) {
    threads.emplace_back([&] {
      const std::lock_guard<TypeParam> lock(this->mutex_);
      while (!stop) (void)this->condition_.Wait(this->mutex_, kPatience);
    });
  }
  uint32_t notified = 0;
  while (notified < 5000) {
    const auto all = this->condition_.NotifyAll();
    ASSERT_THAT(all, IsOk());
    ASSERT_LE(*all, kWaiters);
    notified += *all;
  }
  {
    const std::lock_guard<TypeParam> lock(this->mutex_);
    stop = true;
    EXPECT_THAT(this->condition_.NotifyAll(), IsOk());
  }
  for (std::thread& thread : threads) thread.join();
}

// Somebody sets the clock while one waits.
TYPED_TEST(ConditionVariableLostTest, TheWallClockDoesNotCount) {
  constexpr absl::Duration kTimeout = absl::Milliseconds(40);
  const std::lock_guard<TypeParam> lock(this->mutex_);
  const Deadline enough = Deadline::After(kTimeout);
  EXPECT_THAT(this->condition_.Wait(
                  this->mutex_,
                  [] {
                    wall_clock_skew = 3600;
                    return false;
                  },
                  kTimeout),
              IsOkAndHolds(false));
  wall_clock_skew = 0;
  EXPECT_TRUE(enough.HasPassed());
}

// One that was killed at the last place before anybody could know of it.
TYPED_TEST(ConditionVariableLostTest, TheLastPlaceIsFoundAgain) {
  const auto self = this->segment_.Self();
  ASSERT_THAT(self, IsOk());
  auto& header = *reinterpret_cast<internal::ConditionVariableHeader*>(
      this->segment_.bytes().data() + 64);
  const auto word = [](Participant owner, uint64_t state) {
    return uint64_t{owner.epoch} << 32 | (uint64_t{owner.index} + 1) << 2 |
           state;
  };
  constexpr uint32_t kLast = ConditionVariable::kMaxWaiters - 1;
  for (uint32_t i = 0; i < kLast; ++i) header.waiters[i].word = word(*self, 2);
  header.waiter_end = kLast;
  header.waiters[kLast].word = word({.index = 200, .epoch = 7}, 1);

  const std::lock_guard<TypeParam> lock(this->mutex_);
  EXPECT_THAT(this->condition_.Wait(this->mutex_, absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("")));
}

}  // namespace
}  // namespace ipc::shm
