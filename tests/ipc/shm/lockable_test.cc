// Mutexes by the names of std, and their guards across fork.
#include <fcntl.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/recursive_mutex.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/shared_mutex.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

constexpr absl::Duration kPatience = absl::Seconds(60);

template <typename M>
class LockableTest : public ::testing::Test {
 protected:
  M mutex_ = *M::CreateAnonymous();
};

using AllMutexes = ::testing::Types<Mutex, RecursiveMutex, SharedMutex>;
TYPED_TEST_SUITE(LockableTest, AllMutexes);

// What a child holds itself is not given back by a Guard of its parent.
TYPED_TEST(LockableTest, AnInheritedGuardLeavesWhatTheChildHolds) {
  TypeParam& mutex = this->mutex_;
  std::optional<typename TypeParam::Guard> guard = *mutex.Lock();
  Child child = Child::Fork([&](Child::Side side) {
    side.Tell();
    if (!mutex.AcquireFor(kPatience).ok()) return 1;
    guard.reset();
    return mutex.Unlock().ok() ? 0 : 2;
  });
  ASSERT_TRUE(child.Hear());
  guard.reset();
  EXPECT_EQ(child.Wait(), 0);
}

TEST(SharedLockableTest, AnInheritedGuardLeavesWhatTheChildHolds) {
  SharedMutex mutex = *SharedMutex::CreateAnonymous();
  std::optional<SharedMutex::SharedGuard> guard = *mutex.LockShared();
  Child child = Child::Fork([&](Child::Side) {
    if (!mutex.AcquireSharedFor(kPatience).ok()) return 1;
    guard.reset();
    return mutex.UnlockShared().ok() ? 0 : 2;
  });
  EXPECT_EQ(child.Wait(), 0);
}

TYPED_TEST(LockableTest, TakesAnyDuration) {
  TypeParam& mutex = this->mutex_;
  using Minutes = std::chrono::duration<double, std::ratio<60>>;
  const auto unlock = [&] { mutex.unlock(); };
  ASSERT_TRUE(mutex.try_lock_for(Minutes(0.5)));
  unlock();
  ASSERT_TRUE(mutex.try_lock_for(std::chrono::duration<float>(1)));
  unlock();
  ASSERT_TRUE(mutex.try_lock_for(std::chrono::milliseconds(5)));
  Child child = Child::Fork([&](Child::Side) {
    const auto start = std::chrono::steady_clock::now();
    const std::chrono::duration<double> timeout(0.03);
    return !mutex.try_lock_for(timeout) &&
                   std::chrono::steady_clock::now() - start >= timeout &&
                   !mutex.try_lock_until(std::chrono::system_clock::now() +
                                         timeout)
               ? 0
               : 1;
  });
  EXPECT_EQ(child.Wait(), 0);
  unlock();
}

TYPED_TEST(LockableTest, ThrowsWhatIsWrong) {
  auto reading = *TypeParam::FromFd(
      UniqueFd(fcntl(this->mutex_.fd(), F_DUPFD_CLOEXEC, 0)), Access::kRead);
  try {
    reading.lock();
    FAIL() << "locked what is mapped for reading";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::operation_not_permitted);
  }
}

TEST(RecursiveLockableTest, ThrowsWhatIsWrong) {
  RecursiveMutex mutex = *RecursiveMutex::CreateAnonymous();
  mutex.lock();
  auto& header = *reinterpret_cast<internal::RecursiveMutexHeader*>(
      mutex.segment().bytes().data());
  header.depth = UINT32_MAX;
  try {
    mutex.lock();
    FAIL() << "locked it too often";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::resource_unavailable_try_again);
  }
}

}  // namespace
}  // namespace ipc::shm
