// What a CPU does out of order must not cost a wake-up, or an Update: two
// processes that each write a word and then look at the other's, again and
// again, at the same instant as far as that can be had.
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/event.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/value.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

constexpr uint32_t kRounds = 300'000;

// In cache lines of their own, as what is watched would be.
struct Shared {
  alignas(64) std::atomic<uint32_t> begun;
  alignas(64) std::atomic<uint32_t> done;
  alignas(64) std::atomic<uint32_t> data;
  alignas(64) std::atomic<int64_t> seen;
};

// Until it is `value`: mostly soon, but the machine may have one CPU for us.
void Await(const std::atomic<uint32_t>& word, uint32_t value) {
  for (int i = 0; word.load(std::memory_order_acquire) != value; ++i) {
    if (i > 1000) sched_yield();
  }
}

class LostWakeupTest : public ::testing::Test {
 protected:
  // Runs `there` in another process and `here` in this one, at once, kRounds
  // times; before each round `prepare`, after it `check`.
  void Race(const std::function<void()>& there,
            const std::function<void()>& prepare,
            const std::function<void()>& here,
            const std::function<void()>& check) {
    Child child = Child::Fork([&](Child::Side) {
      for (uint32_t round = 1; round <= kRounds; ++round) {
        Await(shared_.begun, round);
        there();
        shared_.done.store(round, std::memory_order_release);
      }
      return 0;
    });
    for (uint32_t round = 1; round <= kRounds; ++round) {
      prepare();
      shared_.begun.store(round, std::memory_order_release);
      // As long as the other one takes to see it, more or less.
      for (uint32_t i = 0; i < round % 128; ++i) {
        std::atomic_signal_fence(std::memory_order_seq_cst);
      }
      here();
      Await(shared_.done, round);
      check();
    }
    EXPECT_EQ(child.Wait(), 0);
  }

  Segment segment_ = *Segment::CreateAnonymous(sizeof(Shared));
  Shared& shared_ = *reinterpret_cast<Shared*>(segment_.bytes().data());
};

// The Event is set already. The producer adds work and sets it; the consumer
// clears it and looks for work. If it finds none, the Event has to be set.
TEST_F(LostWakeupTest, SetOfAnEventThatIsSet) {
  Event event = *Event::CreateAnonymous();
  uint32_t lost = 0;
  bool found = false;
  Race(
      [&] {
        (void)event.IsSet();  // has its cache line
        shared_.data.store(1, std::memory_order_relaxed);
        (void)event.Set();
      },
      [&] {
        shared_.data.store(0, std::memory_order_relaxed);
        (void)event.Set();
      },
      [&] {
        (void)event.Clear();
        found = shared_.data.load(std::memory_order_relaxed) != 0;
      },
      [&] {
        if (!found && !event.IsSet()) ++lost;
      });
  EXPECT_EQ(lost, 0u) << "of " << kRounds;
}

// Of two that each store to one Value and then look at the other's, one at
// least sees the new one, if they store by Update.
TEST_F(LostWakeupTest, UpdatesOfTwoValues) {
  auto ours = *Value<int64_t>::CreateAnonymous();
  auto theirs = *Value<int64_t>::CreateAnonymous();
  const auto one = [](int64_t) { return 1; };
  uint32_t lost = 0;
  int64_t seen = 0;
  Race(
      [&] {
        (void)theirs.Update(one);
        shared_.seen.store(*ours.Load(), std::memory_order_relaxed);
      },
      [&] {
        (void)ours.Store(0);
        (void)theirs.Store(0);
      },
      [&] {
        (void)ours.Update(one);
        seen = *theirs.Load();
      },
      [&] {
        if (seen == 0 && shared_.seen.load() == 0) ++lost;
      });
  EXPECT_EQ(lost, 0u) << "of " << kRounds;
}

}  // namespace
}  // namespace ipc::shm
