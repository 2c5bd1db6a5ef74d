// A process whose children are in a pid namespace of their own, to which it is
// number 0, as it is outside (pid_namespaces(7)).
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/exit_status.h"
#include "ipc/process/fork_server.h"
#include "ipc/process/process.h"
#include "ipc/process/process_pool.h"
#include "ipc/process/spawn.h"
#include "tests/ipc/process/shell.h"
#include "tests/testing/pipe.h"

namespace ipc::process {
namespace {

using testing::Pipe;
using testing::ReadAll;

constexpr int kMayNot = 77;

// Runs `body` in a process whose children will be elsewhere.
Process StartOutside(const std::function<int()>& body) {
  absl::StatusOr<Process> outside = Process::Start([&] {
    // Without root's rights in a user namespace only.
    if (unshare(CLONE_NEWPID) != 0 &&
        unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) {
      return kMayNot;
    }
    return body();
  });
  EXPECT_TRUE(outside.ok()) << outside.status();
  return *std::move(outside);
}

#define SKIP_UNLESS_ALLOWED()                                           \
  if (StartOutside([] { return 0; }).Join()->exitcode() == kMayNot) {   \
    GTEST_SKIP() << "nobody may have a pid namespace here: unshare(2)"; \
  }

// `start` starts a child that says through its first descriptor that it runs,
// keeps the second one, and stays. It runs, and ends with its parent.
void EndsWithItsParent(
    const std::function<absl::StatusOr<Process>(int up, int alive)>& start) {
  Pipe up, alive;
  Process outside = StartOutside([&]() -> int {
    absl::StatusOr<Process> child =
        start(up.write_end.get(), alive.write_end.get());
    if (!child.ok()) return 1;
    up.write_end.Reset();
    return child->Join()->exitcode();
  });
  up.write_end.Reset();
  alive.write_end.Reset();
  char byte;
  EXPECT_EQ(read(up.read_end.get(), &byte, 1), 1) << "it did not run";
  ASSERT_TRUE(outside.Kill().ok());
  EXPECT_EQ(outside.Join()->exitcode(), -SIGKILL);
  EXPECT_EQ(ReadAll(alive.read_end.get()), "");
}

TEST(PidNamespaceTest, Start) {
  SKIP_UNLESS_ALLOWED();
  EndsWithItsParent([](int up, int) {
    return Process::Start(
        [=]() -> int {
          if (getppid() != 0 || write(up, "", 1) != 1) return 1;
          while (true) pause();
        },
        {.death_signal = SIGKILL});
  });
}

TEST(PidNamespaceTest, Spawn) {
  SKIP_UNLESS_ALLOWED();
  EndsWithItsParent([](int up, int alive) {
    SpawnOptions options = Shell("echo >&8; exec sleep 1000");
    // The duplicate of the parent's pidfd must not be in the way.
    options.fds = {{8, up}, {9, alive}};
    options.death_signal = SIGKILL;
    return Spawn(options);
  });
}

TEST(PidNamespaceTest, ForkServerAndPool) {
  SKIP_UNLESS_ALLOWED();
  Process outside = StartOutside([]() -> int {
    absl::StatusOr<ForkServer> server = ForkServer::Create(
        {{"five",
          [](absl::string_view, const std::vector<UniqueFd>&) { return 5; }}});
    if (!server.ok()) return 1;
    absl::StatusOr<Process> child = server->Start("five");
    if (!child.ok() || child->Join()->exitcode() != 5) return 2;
    if (!server->Stop().ok()) return 3;
    return 0;
  });
  EXPECT_EQ(outside.Join()->exitcode(), 0);
  // The first child was process 1, and with it its namespace has ended.
  outside = StartOutside([]() -> int {
    absl::StatusOr<ProcessPool> pool = ProcessPool::Create(
        [](absl::string_view input) -> absl::StatusOr<std::string> {
          return std::string(input);
        });
    if (!pool.ok()) return 1;
    if (*pool->Submit("echo")->Get() != "echo") return 2;
    return pool->Join().ok() ? 0 : 3;
  });
  EXPECT_EQ(outside.Join()->exitcode(), 0);
}

}  // namespace
}  // namespace ipc::process
