#include "ipc/shm/mutex.h"

#include <fcntl.h>
#include <signal.h>

#include <chrono>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/recursive_mutex.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/shared_mutex.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

UniqueFd Dup(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

// What all three kinds have in common.
template <typename M>
class AnyMutexTest : public ::testing::Test {
 protected:
  M mutex_ = *M::CreateAnonymous();
};

using AllMutexes = ::testing::Types<Mutex, RecursiveMutex, SharedMutex>;
TYPED_TEST_SUITE(AnyMutexTest, AllMutexes);

TYPED_TEST(AnyMutexTest, OneHolderAtATimeBetweenProcesses) {
  TypeParam& mutex = this->mutex_;
  Child child = Child::Fork([&](Child::Side side) {
    auto guard = mutex.Lock();
    side.Tell();
    side.Hear();
    return guard.ok() && !guard->previous_owner_died() ? 0 : 1;
  });
  ASSERT_TRUE(child.Hear());
  const absl::Time before = absl::Now();
  EXPECT_THAT(mutex.Lock(absl::Milliseconds(30)),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("is alive and keeps the lock")));
  EXPECT_GE(absl::Now() - before, absl::Milliseconds(30));
  EXPECT_FALSE(mutex.try_lock());
  child.Tell();
  EXPECT_THAT(mutex.Lock(kPatience), IsOk());
  EXPECT_EQ(child.Wait(), 0);
}

TYPED_TEST(AnyMutexTest, CountsRightBetweenProcessesAndThreads) {
  constexpr int kTimes = 4000;
  TypeParam& mutex = this->mutex_;
  Segment memory = *Segment::CreateAnonymous(64);
  // Plain: the mutex is all that protects it, and ThreadSanitizer watches.
  auto* count = reinterpret_cast<uint64_t*>(memory.bytes().data());
  const auto work = [&] {
    for (int i = 0; i < kTimes; ++i) {
      const std::lock_guard<TypeParam> lock(mutex);
      ++*count;
    }
  };
  Child child = Child::Fork([&](Child::Side) {
    work();
    return 0;
  });
  std::thread a(work), b(work);
  a.join();
  b.join();
  ASSERT_EQ(child.Wait(), 0);
  EXPECT_EQ(*count, 3u * kTimes);
}

TYPED_TEST(AnyMutexTest, TheNextHolderIsToldOnce) {
  TypeParam& mutex = this->mutex_;
  for (int i = 0; i < 3; ++i) {
    Child child = Child::Fork([&](Child::Side side) {
      const std::lock_guard<TypeParam> lock(mutex);
      side.Tell();
      side.Hear();
      return 0;
    });
    ASSERT_TRUE(child.Hear());
    child.Kill();
    {
      auto guard = mutex.Lock(kPatience);
      ASSERT_THAT(guard, IsOk());
      EXPECT_TRUE(guard->previous_owner_died());
    }
    auto guard = mutex.Lock(kPatience);
    ASSERT_THAT(guard, IsOk());
    EXPECT_FALSE(guard->previous_owner_died());
  }
}

TYPED_TEST(AnyMutexTest, AnHeirThatDiesLeavesTheNewsToTheNext) {
  TypeParam& mutex = this->mutex_;
  for (int i = 0; i < 2; ++i) {
    Child child = Child::Fork([&](Child::Side side) {
      auto guard = mutex.Lock(kPatience);
      if (!guard.ok() || guard->previous_owner_died() != (i > 0)) return 1;
      side.Tell();
      side.Hear();
      return 0;
    });
    ASSERT_TRUE(child.Hear());
    child.Kill();
  }
  auto guard = mutex.Lock(kPatience);
  ASSERT_THAT(guard, IsOk());
  EXPECT_TRUE(guard->previous_owner_died());
}

TYPED_TEST(AnyMutexTest, AStoppedHolderIsWaitedFor) {
  TypeParam& mutex = this->mutex_;
  Child child = Child::Fork([&](Child::Side side) {
    const std::lock_guard<TypeParam> lock(mutex);
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(child.Hear());
  child.Stop();
  EXPECT_THAT(mutex.Lock(absl::Milliseconds(100)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("")));
  child.Continue();
  child.Tell();
  auto guard = mutex.Lock(kPatience);
  ASSERT_THAT(guard, IsOk());
  EXPECT_FALSE(guard->previous_owner_died());
  EXPECT_EQ(child.Wait(), 0);
}

TYPED_TEST(AnyMutexTest, AChildDoesNotHoldWhatItsParentHolds) {
  TypeParam& mutex = this->mutex_;
  auto guard = mutex.Lock();
  ASSERT_THAT(guard, IsOk());
  Child child = Child::Fork([&](Child::Side) {
    if (mutex.Unlock().ok()) return 1;
    { auto moved = *std::move(guard); }  // must not unlock it either
    return mutex.Lock(absl::Milliseconds(20)).ok() ? 2 : 0;
  });
  EXPECT_EQ(child.Wait(), 0);
}

TYPED_TEST(AnyMutexTest, IsAStandardTimedLock) {
  TypeParam& mutex = this->mutex_;
  TypeParam other = *TypeParam::CreateAnonymous();
  {
    const std::scoped_lock both(mutex, other);
    std::thread([&] {
      EXPECT_FALSE(mutex.try_lock());
      EXPECT_FALSE(mutex.try_lock_for(std::chrono::milliseconds(1)));
      EXPECT_FALSE(mutex.try_lock_until(std::chrono::steady_clock::now()));
    }).join();
  }
  std::unique_lock<TypeParam> lock(mutex, std::chrono::seconds(10));
  EXPECT_TRUE(lock.owns_lock());
}

TYPED_TEST(AnyMutexTest, ToReleaseWhatIsNotHeldIsAnError) {
  EXPECT_THAT(this->mutex_.Unlock(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("does not hold it")));
  this->mutex_.unlock();
  EXPECT_THAT(this->mutex_.Lock(absl::ZeroDuration()), IsOk());
}

TYPED_TEST(AnyMutexTest, MappedForReadingIsAnError) {
  Segment segment = *Segment::FromFd(Dup(this->mutex_.fd()), Access::kRead);
  TypeParam mutex = *TypeParam::Attach(segment, 0);
  EXPECT_THAT(mutex.Lock(),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("")));
  EXPECT_THROW(mutex.lock(), std::system_error);
  EXPECT_FALSE(mutex.try_lock());
}

TYPED_TEST(AnyMutexTest, AnotherKindIsRefused) {
  Segment segment = *Segment::CreateAnonymous(1 << 16);
  ASSERT_THAT(TypeParam::Attach(segment, 0), IsOk());
  const bool is_mutex = std::is_same_v<TypeParam, Mutex>;
  const absl::Status status = is_mutex
                                  ? RecursiveMutex::Attach(segment, 0).status()
                                  : Mutex::Attach(segment, 0).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr("has layout")));
  EXPECT_THAT(TypeParam::Attach(segment, 8),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("64")));
  EXPECT_THAT(TypeParam::Attach(segment, 1 << 16),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
}

// CPython: _TestLock.test_lock
TEST(LockTest, Lock) {
  Mutex lock = *Mutex::CreateAnonymous();
  EXPECT_THAT(lock.AcquireFor(absl::InfiniteDuration()), IsOk());
  EXPECT_FALSE(lock.try_lock());
  EXPECT_THAT(lock.Unlock(), IsOk());
  EXPECT_FALSE(lock.Unlock().ok());
}

// CPython: _TestLock.test_rlock
TEST(LockTest, Rlock) {
  RecursiveMutex lock = *RecursiveMutex::CreateAnonymous();
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(lock.AcquireFor(absl::InfiniteDuration()), IsOk());
  }
  EXPECT_EQ(lock.depth(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_THAT(lock.Unlock(), IsOk());
  EXPECT_FALSE(lock.Unlock().ok());
}

// CPython: _TestLock.test_lock_context
TEST(LockTest, LockContext) {
  Mutex lock = *Mutex::CreateAnonymous();
  { const std::lock_guard<Mutex> guard(lock); }
  EXPECT_TRUE(lock.try_lock());
}

TEST(RecursiveMutexTest, IsTheThreadsAndNotTheProcesses) {
  RecursiveMutex mutex = *RecursiveMutex::CreateAnonymous();
  auto outer = mutex.Lock();
  auto inner = mutex.Lock();
  ASSERT_THAT(inner, IsOk());
  std::thread([&] {
    EXPECT_EQ(mutex.depth(), 0u);
    EXPECT_FALSE(mutex.Unlock().ok());
    EXPECT_FALSE(mutex.try_lock());
    // By another view of the same memory, too.
    EXPECT_FALSE(RecursiveMutex::FromFd(Dup(mutex.fd()))->try_lock());
  }).join();
  EXPECT_EQ(mutex.depth(), 2u);
  // A child has a thread of another id, though it is a copy of this one.
  Child child = Child::Fork([&](Child::Side) {
    return mutex.depth() == 0 && !mutex.try_lock() ? 0 : 1;
  });
  EXPECT_EQ(child.Wait(), 0);
}

TEST(RecursiveMutexTest, WhoIsKilledDeepInsideLeavesItFree) {
  RecursiveMutex mutex = *RecursiveMutex::CreateAnonymous();
  Child child = Child::Fork([&](Child::Side side) {
    for (int i = 0; i < 5; ++i) mutex.lock();
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(child.Hear());
  child.Kill();
  auto outer = mutex.Lock(kPatience);
  ASSERT_THAT(outer, IsOk());
  auto inner = mutex.Lock();
  EXPECT_TRUE(inner->previous_owner_died());
  EXPECT_EQ(mutex.depth(), 2u) << "its depth was its own";
}

TEST(SharedMutexTest, ManyReadersOrOneWriter) {
  SharedMutex mutex = *SharedMutex::CreateAnonymous();
  Child reader = Child::Fork([&](Child::Side side) {
    const std::shared_lock<SharedMutex> lock(mutex);
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(reader.Hear());
  {
    auto guard = mutex.LockShared();
    ASSERT_THAT(guard, IsOk());
    EXPECT_FALSE(guard->previous_owner_died());
    EXPECT_TRUE(mutex.try_lock_shared());  // another one in this process
    EXPECT_THAT(mutex.UnlockShared(), IsOk());
    EXPECT_THAT(mutex.Lock(absl::Milliseconds(20)),
                StatusIs(absl::StatusCode::kDeadlineExceeded,
                         HasSubstr("goes on reading")));
  }
  EXPECT_THAT(mutex.UnlockShared(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
  EXPECT_FALSE(mutex.try_lock()) << "the child reads";
  EXPECT_TRUE(mutex.try_lock_shared()) << "a writer that gave up is gone";
  mutex.unlock_shared();
  reader.Tell();
  EXPECT_EQ(reader.Wait(), 0);
  auto writer = mutex.Lock(kPatience);
  ASSERT_THAT(writer, IsOk());
  EXPECT_FALSE(mutex.try_lock_shared());
  EXPECT_FALSE(mutex.try_lock_shared_for(std::chrono::milliseconds(1)));
}

TEST(SharedMutexTest, AWaitingWriterIsWokenByTheLastReader) {
  SharedMutex mutex = *SharedMutex::CreateAnonymous();
  mutex.lock_shared();
  Child writer = Child::Fork([&](Child::Side side) {
    side.Tell();
    auto guard = mutex.Lock(kPatience);
    return guard.ok() && !guard->previous_owner_died() ? 0 : 1;
  });
  ASSERT_TRUE(writer.Hear());
  // It keeps new readers out.
  while (mutex.try_lock_shared()) mutex.unlock_shared();
  mutex.unlock_shared();
  EXPECT_EQ(writer.Wait(), 0);
}

TEST(SharedMutexTest, AKilledReaderIsForgotten) {
  SharedMutex mutex = *SharedMutex::CreateAnonymous();
  Child reader = Child::Fork([&](Child::Side side) {
    mutex.lock_shared();
    mutex.lock_shared();
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(reader.Hear());
  reader.Kill();
  auto guard = mutex.Lock(kPatience);
  ASSERT_THAT(guard, IsOk());
  EXPECT_FALSE(guard->previous_owner_died());
}

TEST(SharedMutexTest, ReadersAreToldOfAKilledWriterUntilAWriterUnlocks) {
  SharedMutex mutex = *SharedMutex::CreateAnonymous();
  Child writer = Child::Fork([&](Child::Side side) {
    mutex.lock();
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(writer.Hear());
  writer.Kill();
  for (int i = 0; i < 2; ++i) {
    auto guard = mutex.LockShared(kPatience);
    ASSERT_THAT(guard, IsOk());
    EXPECT_TRUE(guard->previous_owner_died());
  }
  EXPECT_TRUE(mutex.Lock(kPatience)->previous_owner_died());
  EXPECT_FALSE(mutex.LockShared(kPatience)->previous_owner_died());
}

TEST(SharedMutexTest, ReadersNeverSeeAWriterAtWork) {
  constexpr int kTimes = 3000;
  SharedMutex mutex = *SharedMutex::CreateAnonymous();
  Segment memory = *Segment::CreateAnonymous(64);
  auto* pair = reinterpret_cast<uint64_t*>(memory.bytes().data());
  const auto write = [&] {
    for (int i = 0; i < kTimes; ++i) {
      const std::lock_guard<SharedMutex> lock(mutex);
      ++pair[0];
      ++pair[1];
    }
  };
  const auto read = [&] {
    for (int i = 0; i < kTimes; ++i) {
      const std::shared_lock<SharedMutex> lock(mutex);
      if (pair[0] != pair[1]) return false;
    }
    return true;
  };
  Child writer = Child::Fork([&](Child::Side) {
    write();
    return 0;
  });
  Child reader = Child::Fork([&](Child::Side) { return read() ? 0 : 1; });
  std::thread thread([&] { EXPECT_TRUE(read()); });
  write();
  thread.join();
  EXPECT_EQ(writer.Wait(), 0);
  EXPECT_EQ(reader.Wait(), 0);
  EXPECT_EQ(pair[0], 2u * kTimes);
}

}  // namespace
}  // namespace ipc::shm
