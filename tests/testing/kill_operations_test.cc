#include "tests/testing/kill_operations.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"
#include "tests/testing/kill_points.h"

namespace ipc::testing {
namespace {

using ::testing::HasSubstr;

// A point takes less, also on a loaded machine, and so is compared with the
// next.
constexpr absl::Duration kTick = absl::Milliseconds(50);
constexpr absl::Duration kTooLong = absl::Milliseconds(111);

// A word that is 1 within the operation only.
struct World : KillWorld {
  World() {
    void* const memory = mmap(nullptr, sizeof(*word), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    word = static_cast<std::atomic<uint32_t>*>(memory);
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World() { munmap(word, sizeof(*word)); }

  std::atomic<uint32_t>* word;
};

KillOperation<World> Flip() {
  KillOperation<World> operation;
  operation.name = "Flip";
  operation.operate = [](World& world) {
    world.word->store(1);
    // More of them than every so-manieth one that is a point without -c opt.
    for (int i = 0; i < 4 * kKillStride; ++i) world.word->fetch_add(2);
    world.word->store(0);
  };
  return operation;
}

// What fails in `operation`: all messages.
std::string FailuresOf(const KillOperation<World>& operation) {
  ::testing::TestPartResultArray failures;
  {
    ::testing::ScopedFakeTestPartResultReporter reporter(
        ::testing::ScopedFakeTestPartResultReporter::
            INTERCEPT_ONLY_CURRENT_THREAD,
        &failures);
    CheckSurvival(operation, kTick);
  }
  std::string messages;
  for (int i = 0; i < failures.size(); ++i) {
    absl::StrAppend(&messages, failures.GetTestPartResult(i).message(), "\n");
  }
  return messages;
}

TEST(KillOperationsTest, OneThatIsLateOnceIsTriedAgain) {
  bool was_late = false;
  KillOperation<World> operation = Flip();
  operation.check = [&](World& world, const KillPoint&, Survival&) {
    if (world.word->load() == 0 || was_late) return;
    was_late = true;
    absl::SleepFor(kTooLong);
  };
  CheckSurvival(operation, kTick);
  EXPECT_TRUE(was_late);
}

// There are but few such points, and still it is a failure.
TEST(KillOperationsTest, WhereTheSurvivorIsLateEachTimeIsSeen) {
  uint64_t where = 0;
  KillOperation<World> operation = Flip();
  operation.check = [&](World& world, const KillPoint& point, Survival&) {
    if (world.word->load() != 0 && where == 0) where = point.address;
    if (point.address == where) absl::SleepFor(kTooLong);
  };
  EXPECT_THAT(FailuresOf(operation), HasSubstr("went on only after"));
}

TEST(KillOperationsTest, SomebodyHasToBeToldInOneStretch) {
  KillOperation<World> operation = Flip();
  operation.tells = true;
  operation.check = [&](World& world, const KillPoint& point,
                        Survival& survival) {
    survival.Told(point, world.word->load() != 0);
  };
  CheckSurvival(operation, kTick);

  operation.check = [&](World& world, const KillPoint& point,
                        Survival& survival) {
    survival.Told(point, world.word->load() % 4 == 3);
  };
  EXPECT_THAT(FailuresOf(operation), HasSubstr("it was given back before"));

  operation.check = [](World&, const KillPoint& point, Survival& survival) {
    survival.Told(point, false);
  };
  EXPECT_THAT(FailuresOf(operation), HasSubstr("survival.told"));
}

}  // namespace
}  // namespace ipc::testing
