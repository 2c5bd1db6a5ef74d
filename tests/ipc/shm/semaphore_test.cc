#include "ipc/shm/semaphore.h"

#include <fcntl.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/segment.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

// CPython: _TestSemaphore._test_semaphore
template <typename S>
void TakeAndGiveBackTwo(S& semaphore) {
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(2u));
  auto first = semaphore.Acquire();
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(1u));
  auto second = semaphore.Acquire();
  ASSERT_THAT(second, IsOk());
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(0u));
  EXPECT_THAT(semaphore.Acquire(absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("2 units are held")));
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(0u));
  EXPECT_THAT(first->Release(), IsOk());
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(1u));
  EXPECT_THAT(second->Release(), IsOk());
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(2u));
  EXPECT_THAT(second->Release(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
}

// CPython: test_semaphore
TEST(SemaphoreTest, Semaphore) {
  Semaphore semaphore = *Semaphore::CreateAnonymous(2);
  TakeAndGiveBackTwo(semaphore);
  EXPECT_THAT(semaphore.Release(), IsOk());
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(3u));
  EXPECT_THAT(semaphore.Release(), IsOk());
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(4u));
}

// CPython: test_bounded_semaphore
TEST(SemaphoreTest, BoundedSemaphore) {
  BoundedSemaphore semaphore = *BoundedSemaphore::CreateAnonymous(2);
  TakeAndGiveBackTwo(semaphore);
  EXPECT_THAT(semaphore.Release(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("which has 2 of at most 2")));
  EXPECT_THAT(semaphore.Acquire()->Consume(), IsOk());
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(1u));
  EXPECT_FALSE(semaphore.Release(2).ok());
  EXPECT_THAT(semaphore.Release(), IsOk());
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(2u));
}

// CPython: test_timeout
TEST(SemaphoreTest, Timeout) {
  Semaphore semaphore = *Semaphore::CreateAnonymous(0);
  const absl::Time before = absl::Now();
  EXPECT_FALSE(semaphore.Acquire(absl::Milliseconds(40)).ok());
  EXPECT_GE(absl::Now() - before, absl::Milliseconds(40));
  EXPECT_FALSE(semaphore.Acquire(-absl::Seconds(1)).ok());
}

TEST(SemaphoreTest, TheNumberOfUnitsHasToBeTheSame) {
  Semaphore semaphore = *Semaphore::CreateAnonymous(2);
  EXPECT_THAT(
      Semaphore::FromFd(UniqueFd(fcntl(semaphore.fd(), F_DUPFD_CLOEXEC, 0)), 3),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
  EXPECT_THAT(Semaphore::CreateAnonymous(uint64_t{1} << 31),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  Semaphore full = *Semaphore::CreateAnonymous((uint64_t{1} << 31) - 1);
  EXPECT_THAT(full.Release(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
}

TEST(SemaphoreTest, AReleaseWakesAnotherProcess) {
  Semaphore semaphore = *Semaphore::CreateAnonymous(0);
  Semaphore back = *Semaphore::CreateAnonymous(0);
  Child child = Child::Fork([&](Child::Side) {
    for (int i = 0; i < 100; ++i) {
      auto permit = semaphore.Acquire(kPatience);
      if (!permit.ok() || !permit->Consume().ok()) return 1;
      if (!back.Release().ok()) return 2;
    }
    return 0;
  });
  for (int i = 0; i < 100; ++i) {
    ASSERT_THAT(semaphore.Release(), IsOk());
    auto permit = back.Acquire(kPatience);
    ASSERT_THAT(permit, IsOk());
    ASSERT_THAT(permit->Consume(), IsOk());
  }
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(0u));
}

TEST(SemaphoreTest, UnitsOfTheDeadComeBackAndAreToldOnce) {
  BoundedSemaphore semaphore = *BoundedSemaphore::CreateAnonymous(3);
  for (int round = 0; round < 3; ++round) {
    Child child = Child::Fork([&](Child::Side side) {
      auto a = semaphore.Acquire();
      auto b = semaphore.Acquire();
      auto c = semaphore.Acquire();
      if (!c.ok() || c->previous_owner_died()) return 1;
      side.Tell();
      side.Hear();
      return 0;
    });
    ASSERT_TRUE(child.Hear());
    EXPECT_THAT(semaphore.Available(), IsOkAndHolds(0u));
    child.Kill();
    std::vector<Permit> permits;
    for (int i = 0; i < 3; ++i) {
      auto permit = semaphore.Acquire(kPatience);
      ASSERT_THAT(permit, IsOk());
      EXPECT_TRUE(permit->previous_owner_died());
      permits.push_back(*std::move(permit));
    }
    EXPECT_FALSE(semaphore.Acquire(absl::ZeroDuration()).ok());
    permits.clear();
    EXPECT_FALSE(semaphore.Acquire()->previous_owner_died());
  }
}

TEST(SemaphoreTest, WhatTheDeadConsumedIsGone) {
  Semaphore semaphore = *Semaphore::CreateAnonymous(2);
  Child child = Child::Fork([&](Child::Side side) {
    (void)semaphore.Acquire()->Consume();
    auto held = semaphore.Acquire();
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(child.Hear());
  child.Kill();
  auto permit = semaphore.Acquire(kPatience);
  ASSERT_THAT(permit, IsOk());
  EXPECT_FALSE(semaphore.Acquire(absl::Milliseconds(30)).ok());
}

TEST(SemaphoreTest, AChildDoesNotHoldWhatItsParentHolds) {
  Semaphore semaphore = *Semaphore::CreateAnonymous(1);
  auto permit = semaphore.Acquire();
  Child child = Child::Fork([&](Child::Side) {
    if (permit->Release().ok()) return 1;
    return semaphore.Acquire(absl::Milliseconds(20)).ok() ? 2 : 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(0u));
}

TEST(SemaphoreTest, NeverMoreHoldersThanUnits) {
  constexpr int kTimes = 2000;
  BoundedSemaphore semaphore = *BoundedSemaphore::CreateAnonymous(2);
  Segment memory = *Segment::CreateAnonymous(64);
  auto& inside = *reinterpret_cast<std::atomic<int>*>(memory.bytes().data());
  const auto work = [&] {
    for (int i = 0; i < kTimes; ++i) {
      const auto permit = semaphore.Acquire(kPatience);
      if (!permit.ok() || ++inside > 2) return false;
      --inside;
    }
    return true;
  };
  Child child = Child::Fork([&](Child::Side) { return work() ? 0 : 1; });
  std::thread a([&] { EXPECT_TRUE(work()); });
  std::thread b([&] { EXPECT_TRUE(work()); });
  a.join();
  b.join();
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_THAT(semaphore.Available(), IsOkAndHolds(2u));
}

}  // namespace
}  // namespace ipc::shm
