#include "ipc/shm/condition_variable.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/recursive_mutex.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/semaphore.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

// As CPython's: a condition with a lock, and semaphores that count who sleeps
// and who woke.
template <typename M>
class ConditionTest : public ::testing::Test {
 protected:
  void ConsumeOne(Semaphore& semaphore) {
    auto permit = semaphore.Acquire(kPatience);
    ASSERT_THAT(permit, IsOk());
    ASSERT_THAT(permit->Consume(), IsOk());
  }
  // When nobody is left to wake within a while.
  bool NobodyElseWoke() { return !woken_.Acquire(absl::Milliseconds(30)).ok(); }

  Segment segment_ = *Segment::CreateAnonymous(1 << 16);
  M mutex_ = *M::Attach(segment_, 0);
  ConditionVariable condition_ = *ConditionVariable::Attach(segment_, 64);
  Semaphore sleeping_ = *Semaphore::CreateAnonymous(0);
  Semaphore woken_ = *Semaphore::CreateAnonymous(0);

  // CPython's f
  absl::Status SleepOnce(absl::Duration timeout) {
    mutex_.lock();
    (void)sleeping_.Release();
    absl::Status status = condition_.Wait(mutex_, timeout);
    (void)woken_.Release();
    mutex_.unlock();
    return status;
  }
  Child Sleeper(absl::Duration timeout = kPatience) {
    return Child::Fork([this, timeout](Child::Side) {
      return static_cast<int>(SleepOnce(timeout).code());
    });
  }
};

using BothMutexes = ::testing::Types<Mutex, RecursiveMutex>;
TYPED_TEST_SUITE(ConditionTest, BothMutexes);

// CPython: test_notify
TYPED_TEST(ConditionTest, Notify) {
  Child p = this->Sleeper();
  std::thread t([&] { EXPECT_THAT(this->SleepOnce(kPatience), IsOk()); });
  this->ConsumeOne(this->sleeping_);
  this->ConsumeOne(this->sleeping_);
  {
    const std::lock_guard<TypeParam> lock(this->mutex_);
    EXPECT_THAT(this->woken_.Available(), IsOkAndHolds(0u));
    EXPECT_THAT(this->condition_.Notify(), IsOkAndHolds(1u));
  }
  this->ConsumeOne(this->woken_);
  EXPECT_TRUE(this->NobodyElseWoke());
  {
    const std::lock_guard<TypeParam> lock(this->mutex_);
    EXPECT_THAT(this->condition_.Notify(), IsOkAndHolds(1u));
    EXPECT_THAT(this->condition_.Notify(), IsOkAndHolds(0u));
  }
  this->ConsumeOne(this->woken_);
  t.join();
  EXPECT_EQ(p.Wait(), 0);
}

// CPython: test_notify_all
TYPED_TEST(ConditionTest, NotifyAll) {
  // First those who wait for a while only.
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(this->SleepOnce(absl::Milliseconds(10)),
                StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("")));
    this->ConsumeOne(this->sleeping_);
    this->ConsumeOne(this->woken_);
  }
  std::vector<Child> children;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    children.push_back(this->Sleeper());
    threads.emplace_back(
        [&] { EXPECT_THAT(this->SleepOnce(kPatience), IsOk()); });
  }
  for (int i = 0; i < 6; ++i) this->ConsumeOne(this->sleeping_);
  {
    const std::lock_guard<TypeParam> lock(this->mutex_);
    EXPECT_THAT(this->woken_.Available(), IsOkAndHolds(0u));
    EXPECT_THAT(this->condition_.NotifyAll(), IsOkAndHolds(6u));
  }
  for (int i = 0; i < 6; ++i) this->ConsumeOne(this->woken_);
  for (std::thread& thread : threads) thread.join();
  for (Child& child : children) EXPECT_EQ(child.Wait(), 0);
}

// CPython: test_notify_n
TYPED_TEST(ConditionTest, NotifyN) {
  std::vector<Child> children;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    children.push_back(this->Sleeper());
    threads.emplace_back(
        [&] { EXPECT_THAT(this->SleepOnce(kPatience), IsOk()); });
  }
  for (int i = 0; i < 6; ++i) this->ConsumeOne(this->sleeping_);
  const auto notify = [&](uint32_t n, uint32_t notified) {
    const std::lock_guard<TypeParam> lock(this->mutex_);
    EXPECT_THAT(this->condition_.Notify(n), IsOkAndHolds(notified));
  };
  notify(1, 1);
  this->ConsumeOne(this->woken_);
  notify(4, 4);
  for (int i = 0; i < 4; ++i) this->ConsumeOne(this->woken_);
  EXPECT_TRUE(this->NobodyElseWoke());
  notify(3, 1);
  this->ConsumeOne(this->woken_);
  notify(3, 0);
  for (std::thread& thread : threads) thread.join();
  for (Child& child : children) EXPECT_EQ(child.Wait(), 0);
}

// CPython: test_timeout
TYPED_TEST(ConditionTest, Timeout) {
  const std::lock_guard<TypeParam> lock(this->mutex_);
  const absl::Time before = absl::Now();
  EXPECT_THAT(this->condition_.Wait(this->mutex_, absl::Milliseconds(40)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("")));
  EXPECT_GE(absl::Now() - before, absl::Milliseconds(40));
  // It has the mutex again.
  std::thread([&] { EXPECT_FALSE(this->mutex_.try_lock()); }).join();
}

// CPython: test_waitfor
TYPED_TEST(ConditionTest, Waitfor) {
  auto& state =
      *reinterpret_cast<int*>(this->segment_.bytes().data() + (1 << 15));
  Child child = Child::Fork([&](Child::Side) {
    const std::lock_guard<TypeParam> lock(this->mutex_);
    state = 0;
    (void)this->sleeping_.Release();
    const auto result = this->condition_.Wait(
        this->mutex_, [&] { return state == 4; }, kPatience);
    return result.ok() && *result && state == 4 ? 0 : 1;
  });
  this->ConsumeOne(this->sleeping_);
  for (int i = 0; i < 4; ++i) {
    const std::lock_guard<TypeParam> lock(this->mutex_);
    ++state;
    EXPECT_THAT(this->condition_.Notify(), IsOk());
  }
  EXPECT_EQ(child.Wait(), 0);
}

// CPython: test_waitfor_timeout
TYPED_TEST(ConditionTest, WaitforTimeout) {
  auto& state =
      *reinterpret_cast<int*>(this->segment_.bytes().data() + (1 << 15));
  Child child = Child::Fork([&](Child::Side) {
    constexpr absl::Duration kExpected = absl::Milliseconds(100);
    const std::lock_guard<TypeParam> lock(this->mutex_);
    const absl::Time before = absl::Now();
    (void)this->sleeping_.Release();
    const auto result = this->condition_.Wait(
        this->mutex_, [&] { return state == 4; }, kExpected);
    if (!result.ok() || *result) return 1;
    return absl::Now() - before >= kExpected ? 0 : 2;
  });
  this->ConsumeOne(this->sleeping_);
  // None of the notifications satisfies it, and none starts the time anew.
  for (int i = 0; i < 3; ++i) {
    const std::lock_guard<TypeParam> lock(this->mutex_);
    ++state;
    EXPECT_THAT(this->condition_.Notify(), IsOk());
  }
  EXPECT_EQ(child.Wait(), 0);
}

std::atomic<int> interrupts = 0;

// CPython: test_wait_result: there the handler of a signal ends the wait by
// raising KeyboardInterrupt, here it runs and the wait goes on
TYPED_TEST(ConditionTest, WaitResult) {
  interrupts = 0;
  struct sigaction before;
  struct sigaction count = {};
  count.sa_handler = [](int) { ++interrupts; };  // without SA_RESTART
  ASSERT_EQ(sigaction(SIGINT, &count, &before), 0);
  const std::lock_guard<TypeParam> lock(this->mutex_);
  EXPECT_FALSE(this->condition_.Wait(this->mutex_, absl::ZeroDuration()).ok());
  EXPECT_FALSE(
      this->condition_.Wait(this->mutex_, absl::Milliseconds(10)).ok());
  Child child = Child::Fork([&, parent = getpid()](Child::Side side) {
    {
      const std::lock_guard<TypeParam> lock(this->mutex_);
      if (!this->condition_.Notify().ok()) return 1;
    }
    side.Hear();
    {
      // With the mutex, which it gave back to wait.
      const std::lock_guard<TypeParam> lock(this->mutex_);
    }
    kill(parent, SIGINT);
    side.Hear();
    const std::lock_guard<TypeParam> lock(this->mutex_);
    return this->condition_.Notify().ok() ? 0 : 1;
  });
  EXPECT_THAT(this->condition_.Wait(this->mutex_, kPatience), IsOk());
  child.Tell();
  std::thread then_notify([&] {
    while (interrupts == 0) std::this_thread::yield();
    child.Tell();
  });
  EXPECT_THAT(this->condition_.Wait(this->mutex_, kPatience), IsOk());
  EXPECT_EQ(interrupts, 1);
  then_notify.join();
  EXPECT_EQ(child.Wait(), 0);
  ASSERT_EQ(sigaction(SIGINT, &before, nullptr), 0);
}

TYPED_TEST(ConditionTest, WithoutTheMutexIsAnError) {
  EXPECT_THAT(this->condition_.Wait(this->mutex_, kPatience),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("does not hold")));
  EXPECT_THAT(this->condition_.Notify(), IsOkAndHolds(0u))
      << "nobody is left waiting";
}

// Those who die waiting must not take the notification with them.
TYPED_TEST(ConditionTest, TheDeadDoNotCount) {
  std::vector<Child> dead;
  for (int i = 0; i < 3; ++i) dead.push_back(this->Sleeper());
  for (int i = 0; i < 3; ++i) this->ConsumeOne(this->sleeping_);
  Child living = this->Sleeper();
  this->ConsumeOne(this->sleeping_);
  for (Child& child : dead) child.Kill();
  {
    auto guard = this->mutex_.Lock(kPatience);
    ASSERT_THAT(guard, IsOk());
    EXPECT_THAT(this->condition_.Notify(), IsOkAndHolds(1u));
  }
  EXPECT_EQ(living.Wait(), 0);
}

// A stopped one is notified; then it is killed before it could return.
TYPED_TEST(ConditionTest, WhatADeadOneWasNotifiedOfGoesToTheNext) {
  Child first = this->Sleeper();
  this->ConsumeOne(this->sleeping_);
  {
    // Until it has given the mutex back.
    auto guard = this->mutex_.Lock(kPatience);
    ASSERT_THAT(guard, IsOk());
  }
  first.Stop();
  Child second = this->Sleeper();
  this->ConsumeOne(this->sleeping_);
  {
    auto guard = this->mutex_.Lock(kPatience);
    ASSERT_THAT(guard, IsOk());
    EXPECT_THAT(this->condition_.Notify(), IsOkAndHolds(1u));
  }
  EXPECT_TRUE(this->NobodyElseWoke()) << "it is the first one's";
  first.Kill();
  EXPECT_EQ(second.Wait(), 0);
}

TYPED_TEST(ConditionTest, WhoDiedHoldingTheMutexIsToldOf) {
  Child sleeper = Child::Fork([&](Child::Side) {
    this->mutex_.lock();
    (void)this->sleeping_.Release();
    const bool woke = this->condition_.Wait(this->mutex_, kPatience).ok();
    return woke && this->mutex_.previous_owner_died() ? 0 : 1;
  });
  this->ConsumeOne(this->sleeping_);
  Child victim = Child::Fork([&](Child::Side side) {
    this->mutex_.lock();
    (void)this->condition_.Notify();
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(victim.Hear());
  victim.Kill();
  EXPECT_EQ(sleeper.Wait(), 0);
}

TEST(ConditionVariableTest, ARecursiveMutexComesBackAsDeep) {
  Segment segment = *Segment::CreateAnonymous(1 << 16);
  RecursiveMutex mutex = *RecursiveMutex::Attach(segment, 0);
  auto condition = *ConditionVariable::Attach(segment, 64);
  for (int i = 0; i < 3; ++i) mutex.lock();
  EXPECT_FALSE(condition.Wait(mutex, absl::ZeroDuration()).ok());
  EXPECT_EQ(mutex.depth(), 3u);
  std::thread other([&] {
    const std::lock_guard<RecursiveMutex> lock(mutex);
    EXPECT_THAT(condition.Notify(), IsOkAndHolds(1u));
  });
  EXPECT_THAT(condition.Wait(mutex, kPatience), IsOk());
  EXPECT_EQ(mutex.depth(), 3u);
  other.join();
}

TEST(ConditionVariableTest, TooManyIsAnErrorAndTheDeadMakeRoom) {
  constexpr uint32_t kMax = ConditionVariable::kMaxWaiters;
  Segment segment = *Segment::CreateAnonymous(1 << 16);
  Mutex mutex = *Mutex::Attach(segment, 0);
  auto condition = *ConditionVariable::Attach(segment, 64);
  Child crowd = Child::Fork([&](Child::Side side) {
    std::vector<std::thread> threads;
    std::atomic<uint32_t> asleep = 0;
    for (uint32_t i = 0; i < kMax; ++i) {
      threads.emplace_back([&] {
        const std::lock_guard<Mutex> lock(mutex);
        ++asleep;
        (void)condition.Wait(mutex);
      });
    }
    while (asleep < kMax) std::this_thread::yield();
    side.Tell();
    side.Hear();
    for (std::thread& thread : threads) thread.join();
    return 0;
  });
  ASSERT_TRUE(crowd.Hear());
  const std::lock_guard<Mutex> lock(mutex);
  EXPECT_THAT(condition.Wait(mutex, absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("256 wait already")));
  crowd.Kill();
  EXPECT_THAT(condition.Wait(mutex, absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("")));
}

}  // namespace
}  // namespace ipc::shm
