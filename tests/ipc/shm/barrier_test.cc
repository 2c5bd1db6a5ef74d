#include "ipc/shm/barrier.h"

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/segment.h"
#include "tests/testing/child.h"
#include "tests/testing/pipe.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr uint32_t kParties = 5;

// CPython's _TestBarrier: N workers, some of them processes here and some
// threads, and results in shared memory.
class BarrierTest : public ::testing::Test {
 protected:
  std::atomic<uint32_t>& result(int i) {
    return reinterpret_cast<std::atomic<uint32_t>*>(memory_.bytes().data())[i];
  }

  // Runs `body` kParties times at once: false if one of them returned false.
  bool RunThreads(const std::function<bool()>& body) {
    std::vector<Child> children;
    for (uint32_t i = 0; i < 2; ++i) {
      children.push_back(
          Child::Fork([&](Child::Side) { return body() ? 0 : 1; }));
    }
    std::atomic<bool> fine = true;
    std::vector<std::thread> threads;
    for (uint32_t i = 2; i < kParties; ++i) {
      threads.emplace_back([&] {
        if (!body()) fine = false;
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (Child& child : children) {
      if (child.Wait() != 0) fine = false;
    }
    return fine;
  }

  // CPython's multipass: none is ahead of the others by more than a round.
  void Multipass(uint32_t rounds) {
    EXPECT_TRUE(RunThreads([&] {
      for (uint32_t round = 0; round < rounds; ++round) {
        result(0)++;
        if (result(1) != kParties * round) return false;
        if (!barrier_.Wait(kPatience).ok()) return false;
        result(1)++;
        if (result(0) != kParties * (round + 1)) return false;
        if (!barrier_.Wait(kPatience).ok()) return false;
      }
      return true;
    }));
    EXPECT_EQ(result(0), kParties * rounds);
    EXPECT_THAT(barrier_.IsBroken(), IsOkAndHolds(false));
  }

  Segment memory_ = *Segment::CreateAnonymous(4096);
  Barrier barrier_ = *Barrier::CreateAnonymous(kParties);
};

// CPython: test_barrier
TEST_F(BarrierTest, Barrier) { Multipass(1); }

// CPython: test_barrier_10
TEST_F(BarrierTest, Barrier10) { Multipass(10); }

TEST_F(BarrierTest, AThousandRounds) { Multipass(1000); }

// CPython: test_thousand
TEST_F(BarrierTest, Thousand) {
  constexpr uint32_t kPasses = 1000;
  const testing::Pipe pipe;
  std::vector<Child> children;
  for (uint32_t i = 0; i < kParties; ++i) {
    children.push_back(Child::Fork([&](Child::Side) {
      for (uint32_t pass = 0; pass < kPasses; ++pass) {
        if (!barrier_.Wait(kPatience).ok()) return 1;
        // In one piece, so short a one.
        if (write(pipe.write_end.get(), &pass, sizeof(pass)) != sizeof(pass)) {
          return 2;
        }
      }
      return 0;
    }));
  }
  for (uint32_t pass = 0; pass < kPasses; ++pass) {
    for (uint32_t i = 0; i < kParties; ++i) {
      uint32_t received = ~uint32_t{0};
      ASSERT_EQ(read(pipe.read_end.get(), &received, sizeof(received)),
                static_cast<ssize_t>(sizeof(received)));
      ASSERT_EQ(received, pass) << "one is ahead of another";
    }
  }
  for (Child& child : children) EXPECT_EQ(child.Wait(), 0);
}

// CPython: test_wait_return
TEST_F(BarrierTest, WaitReturn) {
  EXPECT_TRUE(RunThreads([&] {
    const auto place = barrier_.Wait(kPatience);
    if (!place.ok()) return false;
    result(static_cast<int>(*place))++;
    return true;
  }));
  for (uint32_t i = 0; i < kParties; ++i) {
    EXPECT_EQ(result(static_cast<int>(i)), 1u);
  }
  EXPECT_THAT(barrier_.ApproximateWaiting(), IsOkAndHolds(0u));
}

// CPython: test_action
TEST_F(BarrierTest, Action) {
  EXPECT_TRUE(RunThreads([&] {
    return barrier_.Wait(kPatience, [&] { result(0)++; }).ok() &&
           result(0) == 1;
  }));
}

// CPython: test_abort
TEST_F(BarrierTest, Abort) {
  EXPECT_TRUE(RunThreads([&] {
    if (result(0)++ == kParties / 2) {
      return barrier_.Abort().ok();
    }
    return absl::IsAborted(barrier_.Wait(kPatience).status());
  }));
  EXPECT_THAT(barrier_.IsBroken(), IsOkAndHolds(true));
}

// CPython: test_reset
TEST_F(BarrierTest, Reset) {
  EXPECT_TRUE(RunThreads([&] {
    if (result(0)++ == kParties / 2) {
      // When all the others wait.
      while (*barrier_.ApproximateWaiting() < kParties - 1) {
        std::this_thread::yield();
      }
      if (!barrier_.Reset().ok()) return false;
    } else if (!absl::IsAborted(barrier_.Wait(kPatience).status())) {
      return false;
    }
    return barrier_.Wait(kPatience).ok();
  }));
  EXPECT_THAT(barrier_.IsBroken(), IsOkAndHolds(false));
}

// CPython: test_abort_and_reset
TEST_F(BarrierTest, AbortAndReset) {
  Barrier second = *Barrier::CreateAnonymous(kParties);
  EXPECT_TRUE(RunThreads([&] {
    if (result(0)++ == kParties / 2) {
      if (!barrier_.Abort().ok()) return false;
    } else if (!absl::IsAborted(barrier_.Wait(kPatience).status())) {
      return false;
    }
    const auto place = second.Wait(kPatience);
    if (!place.ok()) return false;
    if (*place == 0 && !barrier_.Reset().ok()) return false;
    return second.Wait(kPatience).ok() && barrier_.Wait(kPatience).ok();
  }));
}

// CPython: test_timeout
TEST_F(BarrierTest, Timeout) {
  EXPECT_TRUE(RunThreads([&] {
    if (result(0)++ == kParties / 2) {
      // One is late: when the first one has given up.
      while (!*barrier_.IsBroken()) std::this_thread::yield();
      return absl::IsAborted(barrier_.Wait(kPatience).status());
    }
    const absl::Status status = barrier_.Wait(absl::Milliseconds(100)).status();
    if (absl::IsDeadlineExceeded(status)) result(1)++;
    return absl::IsDeadlineExceeded(status) || absl::IsAborted(status);
  }));
  EXPECT_GE(result(1), 1u);
}

// CPython: test_default_timeout: it is not the barrier that has one here, but
// what all pass to Wait.
TEST_F(BarrierTest, DefaultTimeout) {
  EXPECT_TRUE(RunThreads([&] {
    const auto place = barrier_.Wait(kPatience);
    if (!place.ok()) return false;
    // One comes too late for the second round.
    while (*place == kParties / 2 && !*barrier_.IsBroken()) {
      std::this_thread::yield();
    }
    const absl::Status status = barrier_.Wait(absl::Milliseconds(100)).status();
    if (absl::IsDeadlineExceeded(status) || absl::IsAborted(status)) {
      result(0)++;
    }
    return true;
  }));
  EXPECT_EQ(result(0), kParties);
}

// CPython: test_single_thread
TEST_F(BarrierTest, SingleThread) {
  Barrier barrier = *Barrier::CreateAnonymous(uint32_t{1});
  EXPECT_THAT(barrier.Wait(), IsOkAndHolds(0u));
  EXPECT_THAT(barrier.Wait(), IsOkAndHolds(0u));
}

TEST_F(BarrierTest, PartiesAreChecked) {
  EXPECT_THAT(Barrier::CreateAnonymous(uint32_t{0}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 to")));
  EXPECT_THAT(Barrier::Attach(barrier_.segment(), 0, kParties + 1),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
}

TEST_F(BarrierTest, TheDeathOfOneWhoWaitsBreaksIt) {
  Barrier barrier = *Barrier::CreateAnonymous(uint32_t{3});
  Child victim =
      Child::Fork([&](Child::Side) { return barrier.Wait().ok() ? 0 : 1; });
  while (*barrier.ApproximateWaiting() < 1) std::this_thread::yield();
  Child other = Child::Fork([&](Child::Side) {
    const absl::Status status = barrier.Wait(kPatience).status();
    return absl::IsAborted(status) &&
                   status.message().find("died") != std::string::npos
               ? 0
               : 1;
  });
  while (*barrier.ApproximateWaiting() < 2) std::this_thread::yield();
  victim.Kill();
  EXPECT_EQ(other.Wait(), 0);
  EXPECT_THAT(barrier.Wait(kPatience),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("Reset")));
  EXPECT_THAT(barrier.Reset(), IsOk());
  std::thread a([&] { EXPECT_THAT(barrier.Wait(kPatience), IsOk()); });
  std::thread b([&] { EXPECT_THAT(barrier.Wait(kPatience), IsOk()); });
  EXPECT_THAT(barrier.Wait(kPatience), IsOk());
  a.join();
  b.join();
}

// Nobody is let through with a dead one, even if nobody else waited when it
// died.
TEST_F(BarrierTest, TheLastToComeFindsTheDead) {
  Barrier barrier = *Barrier::CreateAnonymous(uint32_t{2});
  Child victim =
      Child::Fork([&](Child::Side) { return barrier.Wait().ok() ? 0 : 1; });
  while (*barrier.ApproximateWaiting() < 1) std::this_thread::yield();
  victim.Kill();
  EXPECT_THAT(barrier.Wait(kPatience),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("died")));
}

}  // namespace
}  // namespace ipc::shm
