// A timer fires every 100 us, and its handler does not ask for system calls to
// be restarted: all that can return EINTR does.
#include <fcntl.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/wait_any.h"
#include "ipc/base/waitable.h"
#include "ipc/pipe/connection.h"
#include "ipc/process/exit_status.h"
#include "ipc/process/fork_server.h"
#include "ipc/process/process.h"
#include "ipc/process/process_pool.h"
#include "ipc/process/spawn.h"

namespace ipc::process {
namespace {

using ::ipc::pipe::Connection;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::atomic<int> interruptions = 0;

class InterruptedTest : public testing::Test {
 protected:
  void SetUp() override {
    struct sigaction action = {};
    action.sa_handler = [](int) {
      interruptions.fetch_add(1, std::memory_order_relaxed);  // a statistic
    };
    ASSERT_EQ(sigaction(SIGALRM, &action, nullptr), 0);
    const itimerval storm = {{0, 100}, {0, 100}};
    ASSERT_EQ(setitimer(ITIMER_REAL, &storm, nullptr), 0);
    interruptions = 0;
  }
  void TearDown() override {
    const itimerval none = {};
    EXPECT_EQ(setitimer(ITIMER_REAL, &none, nullptr), 0);
#if !defined(ABSL_HAVE_THREAD_SANITIZER)  // It calls handlers when it pleases.
    EXPECT_GT(interruptions, 10) << "there was no storm";
#endif
  }
};

TEST_F(InterruptedTest, SpawnAndJoin) {
  SpawnOptions options;
  options.argv = {"/bin/sh", "-c", "exit 7"};
  for (int i = 0; i < 200; ++i) {
    absl::StatusOr<Process> child = Spawn(options);
    ASSERT_TRUE(child.ok()) << child.status();
    absl::StatusOr<ExitStatus> status = child->Join();
    ASSERT_TRUE(status.ok()) << status.status();
    ASSERT_EQ(status->exitcode(), 7);
  }
}

TEST_F(InterruptedTest, StartAndJoin) {
  for (int i = 0; i < 200; ++i) {
    absl::StatusOr<Process> child = Process::Start([&] { return i & 63; });
    ASSERT_TRUE(child.ok()) << child.status();
    absl::StatusOr<ExitStatus> status = child->Join();
    ASSERT_TRUE(status.ok()) << status.status();
    ASSERT_EQ(status->exitcode(), i & 63);
  }
}

TEST_F(InterruptedTest, TimeoutsAreNeitherShortenedNorForgotten) {
  SpawnOptions options;
  options.argv = {"/bin/sleep", "1000"};
  absl::StatusOr<Process> child = Spawn(options);
  ASSERT_TRUE(child.ok()) << child.status();
  const absl::Time begin = absl::Now();
  EXPECT_EQ(child->Join(absl::Milliseconds(50)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(50));
  const Waitable* waitables[] = {&*child};
  EXPECT_THAT(*WaitAny(waitables, absl::Milliseconds(50)), IsEmpty());
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(100));
  ASSERT_TRUE(child->Kill().ok());
  EXPECT_THAT(*WaitAny(waitables), ElementsAre(0));
  EXPECT_EQ(child->Join()->exitcode(), -SIGKILL);
}

TEST_F(InterruptedTest, Connections) {
  auto ends = Connection::CreatePair();
  ASSERT_TRUE(ends.ok()) << ends.status();
  Connection& ours = ends->first;
  Connection& theirs = ends->second;
  absl::StatusOr<Process> echo = Process::Start([&] {
    ours.Close();
    // A timer is not inherited.
    const itimerval storm = {{0, 100}, {0, 100}};
    setitimer(ITIMER_REAL, &storm, nullptr);
    while (true) {
      absl::StatusOr<std::string> message = theirs.Receive();
      if (absl::IsOutOfRange(message.status())) return 0;
      if (!message.ok() || !theirs.Send(*message).ok()) return 1;
    }
  });
  ASSERT_TRUE(echo.ok()) << echo.status();
  theirs.Close();
  // More than a socket holds, so that both sides wait within a message.
  for (const size_t size : {size_t{1}, size_t{1000}, size_t{4} << 20}) {
    for (int i = 0; i < 20; ++i) {
      const std::string message(size, static_cast<char>('a' + i));
      ASSERT_TRUE(ours.Send(message).ok());
      const Waitable* waitables[] = {&ours};
      ASSERT_THAT(*WaitAny(waitables), ElementsAre(0));
      absl::StatusOr<std::string> answer = ours.Receive();
      ASSERT_TRUE(answer.ok()) << answer.status();
      ASSERT_TRUE(*answer == message);
    }
  }
  ours.Close();
  EXPECT_EQ(echo->Join()->exitcode(), 0);
}

TEST_F(InterruptedTest, ForkServerAndPool) {
  absl::StatusOr<ForkServer> server = ForkServer::Create(
      {{"length", [](absl::string_view argument, const std::vector<UniqueFd>&) {
          return static_cast<int>(argument.size());
        }}});
  ASSERT_TRUE(server.ok()) << server.status();
  for (int i = 0; i < 200; ++i) {
    absl::StatusOr<Process> child =
        server->Start("length", std::string(i, 'x'));
    ASSERT_TRUE(child.ok()) << child.status();
    absl::StatusOr<ExitStatus> status = child->Join();
    ASSERT_TRUE(status.ok()) << status.status();
    ASSERT_EQ(status->exitcode(), i);
  }
  EXPECT_TRUE(server->Stop().ok());

  absl::StatusOr<ProcessPool> pool = ProcessPool::Create(
      [](absl::string_view input) -> absl::StatusOr<std::string> {
        return std::string(input);
      });
  ASSERT_TRUE(pool.ok()) << pool.status();
  for (int i = 0; i < 20; ++i) {
    auto results = pool->Map(std::vector<std::string>(50, "same"));
    ASSERT_TRUE(results.ok()) << results.status();
    for (const absl::StatusOr<std::string>& result : *results) {
      ASSERT_TRUE(result.ok()) << result.status();
    }
  }
  EXPECT_TRUE(pool->Join().ok());
}

// And so do the time-outs of what waits for another process' answer, which is
// stopped.
TEST_F(InterruptedTest, TimeoutsOfForkServerAndPool) {
  constexpr absl::Duration kTimeout = absl::Milliseconds(50);
  absl::StatusOr<ForkServer> server = ForkServer::Create(
      {{"nothing",
        [](absl::string_view, const std::vector<UniqueFd>&) { return 0; }}});
  ASSERT_TRUE(server.ok()) << server.status();
  ASSERT_TRUE(server->server().Signal(SIGSTOP).ok());
  absl::Time begin = absl::Now();
  EXPECT_EQ(server->Start("nothing", "", {}, kTimeout).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - begin, kTimeout);
  begin = absl::Now();
  EXPECT_EQ(server->Stop(kTimeout).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - begin, kTimeout);
  ASSERT_TRUE(server->server().Signal(SIGCONT).ok());
  EXPECT_TRUE(server->Stop().ok());

  // Its worker is in a storm of its own.
  absl::StatusOr<ProcessPool> pool = ProcessPool::Create(
      [](absl::string_view input) -> absl::StatusOr<std::string> {
        const itimerval storm = {{0, 100}, {0, 100}};
        setitimer(ITIMER_REAL, &storm, nullptr);
        if (input == "stay") {
          while (true) pause();
        }
        return std::string(input);
      },
      {.workers = 1});
  ASSERT_TRUE(pool.ok()) << pool.status();
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(*pool->Submit("same")->Get(), "same");
  }
  absl::StatusOr<PoolTask> task = pool->Submit("stay");
  begin = absl::Now();
  EXPECT_EQ(task->Get(kTimeout).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - begin, kTimeout);
  begin = absl::Now();
  EXPECT_EQ(pool->Join(kTimeout).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - begin, kTimeout);
  pool->Terminate();
}

}  // namespace
}  // namespace ipc::process
