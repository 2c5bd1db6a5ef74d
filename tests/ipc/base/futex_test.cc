#include "ipc/base/futex.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <new>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/base/deadline.h"
#include "ipc/base/memory.h"
#include "ipc/base/unique_fd.h"

namespace ipc {
namespace {

constexpr absl::Duration kLong = absl::Minutes(5);

TEST(FutexTest, DoesNotSleepIfTheWordHasChanged) {
  std::atomic<uint32_t> word = 2;
  EXPECT_TRUE(FutexWait(word, 1, Deadline::Infinite()));
}

TEST(FutexTest, TimesOut) {
  std::atomic<uint32_t> word = 1;
  const absl::Duration timeout = absl::Milliseconds(20);
  const absl::Time start = absl::Now();
  const Deadline deadline = Deadline::After(timeout);
  while (FutexWait(word, 1, deadline)) {
  }
  EXPECT_GE(absl::Now() - start, timeout);
  EXPECT_TRUE(deadline.HasPassed());
}

TEST(FutexTest, TimesOutAtOnceIfTheDeadlineHasPassed) {
  std::atomic<uint32_t> word = 1;
  while (FutexWait(word, 1, Deadline::After(absl::ZeroDuration()))) {
  }
}

TEST(FutexTest, WakeWithoutSleepersWakesNobody) {
  std::atomic<uint32_t> word = 1;
  EXPECT_EQ(FutexWake(word, 1), 0);
}

TEST(FutexTest, WakesAThread) {
  std::atomic<uint32_t> word = 0;
  std::thread thread([&] {
    const Deadline deadline = Deadline::After(kLong);
    while (word.load() == 0) ASSERT_TRUE(FutexWait(word, 0, deadline));
  });
  word.store(1);
  FutexWake(word, 1);
  thread.join();
}

// A count is honest: until the word is stored, the sleepers go back to sleep,
// so both are caught sooner or later.
TEST(FutexTest, WakeSaysHowManySlept) {
  std::atomic<uint32_t> word = 0;
  const auto sleeper = [&] {
    while (word.load() == 0) FutexWait(word, 0, Deadline::Infinite());
  };
  std::thread a(sleeper);
  std::thread b(sleeper);
  while (FutexWake(word, 2) != 2) std::this_thread::yield();
  word.store(1);
  FutexWake(word, 2);
  a.join();
  b.join();
}

// The word is found by what it is in memory, not by its address here.
TEST(FutexTest, WakesAnotherProcessThroughAnotherMapping) {
  absl::StatusOr<UniqueFd> fd = CreateMemory("futex_test", 4096);
  ASSERT_TRUE(fd.ok()) << fd.status();
  absl::StatusOr<Mapping> mapping = Mapping::Create(fd->get(), 4096);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  auto& word = *new (mapping->data()) std::atomic<uint32_t>(0);
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    absl::StatusOr<Mapping> own = Mapping::Create(fd->get(), 4096);
    if (!own.ok() || own->data() == mapping->data()) _exit(1);
    auto& same = *reinterpret_cast<std::atomic<uint32_t>*>(own->data());
    const Deadline deadline = Deadline::After(kLong);
    while (same.load() == 0) {
      if (!FutexWait(same, 0, deadline)) _exit(2);
    }
    _exit(0);
  }
  while (FutexWake(word, 1) == 0) {  // until it sleeps
    int status;
    ASSERT_EQ(waitpid(pid, &status, WNOHANG), 0);
    std::this_thread::yield();
  }
  word.store(1);
  FutexWake(word, 1);
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(FutexTest, ASignalIsASpuriousWakeUpNotATimeout) {
  struct sigaction action = {};
  action.sa_handler = [](int) {};  // without SA_RESTART
  struct sigaction before;
  sigaction(SIGUSR1, &action, &before);
  std::atomic<uint32_t> word = 0;
  std::atomic<bool> returned = false;
  std::thread thread([&] {
    EXPECT_TRUE(FutexWait(word, 0, Deadline::After(kLong)));
    returned = true;
  });
  while (!returned) {
    pthread_kill(thread.native_handle(), SIGUSR1);
    std::this_thread::yield();
  }
  thread.join();
  sigaction(SIGUSR1, &before, nullptr);
}

}  // namespace
}  // namespace ipc
