// Each function that tsan_absl.cc hides does what Abseil documents, and orders
// the plain memory it guards: under ThreadSanitizer, a missing definition
// aborts and a missing happens-before is reported.
#include <thread>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace {

constexpr absl::Duration kLong = absl::Minutes(5);

// Gives turns to another thread, which adds one to value_ in each.
class TsanAbslTest : public testing::Test {
 protected:
  // `turns`: how often GiveTurn will be called.
  void StartOther(int turns) {
    other_ = std::thread([this, turns] {
      for (int i = 0; i < turns; ++i) {
        mutex_.Lock();
        while (!theirs_) changed_.Wait(&mutex_);
        theirs_ = false;
        ++value_;
        changed_.SignalAll();
        mutex_.Unlock();
      }
    });
  }
  void GiveTurn() {
    const absl::MutexLock lock(&mutex_);
    theirs_ = true;
    changed_.SignalAll();
  }
  void JoinOther() { other_.join(); }

  absl::Condition Ours() {
    return absl::Condition(
        +[](bool* theirs) { return !*theirs; }, &theirs_);
  }
  static absl::Condition Never() {
    static bool never = false;
    return absl::Condition(&never);
  }

  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool theirs_ = false;
  int value_ = 0;
  std::thread other_;
};

TEST_F(TsanAbslTest, LockWhen) {
  StartOther(6);
  GiveTurn();
  mutex_.LockWhen(Ours());
  EXPECT_EQ(value_, 1);
  mutex_.Unlock();
  GiveTurn();
  EXPECT_TRUE(mutex_.LockWhenWithTimeout(Ours(), kLong));
  EXPECT_EQ(value_, 2);
  mutex_.Unlock();
  GiveTurn();
  EXPECT_TRUE(mutex_.LockWhenWithDeadline(Ours(), absl::Now() + kLong));
  EXPECT_EQ(value_, 3);
  mutex_.Unlock();
  GiveTurn();
  mutex_.ReaderLockWhen(Ours());
  EXPECT_EQ(value_, 4);
  mutex_.ReaderUnlock();
  GiveTurn();
  EXPECT_TRUE(mutex_.ReaderLockWhenWithTimeout(Ours(), kLong));
  EXPECT_EQ(value_, 5);
  mutex_.ReaderUnlock();
  GiveTurn();
  EXPECT_TRUE(mutex_.ReaderLockWhenWithDeadline(Ours(), absl::Now() + kLong));
  EXPECT_EQ(value_, 6);
  mutex_.ReaderUnlock();
  JoinOther();
}

TEST_F(TsanAbslTest, LockWhenInVainStillLocks) {
  EXPECT_FALSE(mutex_.LockWhenWithTimeout(Never(), absl::Milliseconds(1)));
  mutex_.AssertHeld();
  mutex_.Unlock();
}

TEST_F(TsanAbslTest, Await) {
  StartOther(3);
  GiveTurn();
  mutex_.Lock();
  mutex_.Await(Ours());
  EXPECT_EQ(value_, 1);
  mutex_.Unlock();
  GiveTurn();
  mutex_.Lock();
  EXPECT_TRUE(mutex_.AwaitWithTimeout(Ours(), kLong));
  EXPECT_EQ(value_, 2);
  mutex_.Unlock();
  GiveTurn();
  mutex_.Lock();
  EXPECT_TRUE(mutex_.AwaitWithDeadline(Ours(), absl::Now() + kLong));
  EXPECT_EQ(value_, 3);
  EXPECT_FALSE(mutex_.AwaitWithTimeout(Never(), absl::Milliseconds(1)));
  mutex_.Unlock();
  JoinOther();
}

TEST_F(TsanAbslTest, CondVar) {
  StartOther(3);
  GiveTurn();
  mutex_.Lock();
  while (theirs_) changed_.Wait(&mutex_);
  EXPECT_EQ(value_, 1);
  mutex_.Unlock();
  GiveTurn();
  mutex_.Lock();
  while (theirs_) changed_.WaitWithTimeout(&mutex_, kLong);
  EXPECT_EQ(value_, 2);
  mutex_.Unlock();
  GiveTurn();
  mutex_.Lock();
  while (theirs_) changed_.WaitWithDeadline(&mutex_, absl::Now() + kLong);
  EXPECT_EQ(value_, 3);
  mutex_.Unlock();
  JoinOther();
}

TEST_F(TsanAbslTest, TryLock) {
  StartOther(2);
  for (const bool reader : {false, true}) {
    GiveTurn();
    for (bool ours = false; !ours; std::this_thread::yield()) {
      if (reader) {
        if (!mutex_.ReaderTryLock()) continue;
        ours = !theirs_;
        mutex_.ReaderUnlock();
      } else {
        if (!mutex_.TryLock()) continue;
        ours = !theirs_;
        mutex_.Unlock();
      }
    }
  }
  mutex_.ReaderLock();
  EXPECT_EQ(value_, 2);
  EXPECT_FALSE(mutex_.TryLock());
  mutex_.ReaderUnlock();
  JoinOther();
}

TEST(TsanAbslNotificationTest, OrdersWhatCameBefore) {
  for (int way = 0; way < 4; ++way) {
    int value = 0;
    absl::Notification done;
    std::thread other([&value, &done] {
      value = 1;
      done.Notify();
    });
    switch (way) {
      case 0:
        done.WaitForNotification();
        break;
      case 1:
        EXPECT_TRUE(done.WaitForNotificationWithTimeout(kLong));
        break;
      case 2:
        EXPECT_TRUE(done.WaitForNotificationWithDeadline(absl::Now() + kLong));
        break;
      default:
        while (!done.HasBeenNotified()) std::this_thread::yield();
    }
    EXPECT_EQ(value, 1) << "way " << way;
    other.join();
  }
}

TEST(TsanAbslBlockingCounterTest, OrdersWhatCameBefore) {
  int values[2] = {0, 0};
  absl::BlockingCounter counter(2);
  std::thread first([&] {
    values[0] = 1;
    counter.DecrementCount();
  });
  std::thread second([&] {
    values[1] = 1;
    counter.DecrementCount();
  });
  counter.Wait();
  EXPECT_EQ(values[0] + values[1], 2);
  first.join();
  second.join();
}

}  // namespace
