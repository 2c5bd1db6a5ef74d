// The child that a fork server keeps ready.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/children.h"
#include "ipc/process/exit_status.h"
#include "ipc/process/fork_server.h"
#include "ipc/process/process.h"
#include "tests/ipc/process/fork_functions.h"
#include "tests/testing/pipe.h"

namespace ipc::process {
namespace {

using testing::Pipe;
using testing::ReadAll;

using ::testing::IsEmpty;

// The descriptors that it has, to its first one; which are others.
int ListFds(absl::string_view /*argument*/, const std::vector<UniqueFd>& fds) {
  std::string text;
  for (int fd = 0; fd < 1024; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) continue;
    bool granted = false;
    for (const UniqueFd& one : fds) granted |= one.get() == fd;
    if (!granted) absl::StrAppend(&text, fd, " ");
  }
  return Echo(absl::StrCat(text, "and ", fds.size()), fds);
}

ForkServer Create(const ForkServerOptions& options = {}) {
  absl::StatusOr<ForkServer> server = ForkServer::Create(
      {{"exit", Exit}, {"echo", Echo}, {"list fds", ListFds}}, options);
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

// The server's children. Nothing tells when that changes, so it is asked again
// and again.
std::vector<pid_t> ChildrenOf(const ForkServer& server) {
  const pid_t pid = server.server().pid();
  std::ifstream file(absl::StrCat("/proc/", pid, "/task/", pid, "/children"));
  std::vector<pid_t> children;
  for (pid_t child; file >> child;) children.push_back(child);
  return children;
}

// Once it is the only child.
pid_t AwaitSpare(const ForkServer& server) {
  while (true) {
    const std::vector<pid_t> children = ChildrenOf(server);
    if (children.size() == 1) return children.front();
    absl::SleepFor(absl::Milliseconds(1));
  }
}

void AwaitEnd(pid_t pid) {
  const UniqueFd end(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!end.ok()) return;  // it has been reaped
  pollfd ready = {.fd = end.get(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&ready, 1, -1), 1);
}

TEST(ForkSpareTest, IsThereBeforeItIsAskedFor) {
  ForkServer server = Create();
  for (int i = 0; i < 10; ++i) {
    const pid_t spare = AwaitSpare(server);
    absl::StatusOr<Process> child = server.Start("exit", absl::StrCat(i));
    ASSERT_TRUE(child.ok()) << child.status();
    EXPECT_EQ(child->pid(), spare);
    EXPECT_EQ(child->Join()->exitcode(), i);
  }
  EXPECT_TRUE(server.Stop().ok());
  EXPECT_THAT(ListChildren(), IsEmpty());
}

// The same holds for one that is forked on request, as in fork_server_test.
TEST(ForkSpareTest, HoldsExactlyWhatItWasGranted) {
  Pipe kept;
  for (const bool keeps : {false, true}) {
    ForkServerOptions options;
    if (keeps) options.keep_fds = {kept.read_end.get()};
    ForkServer server = Create(options);
    AwaitSpare(server);
    Pipe pipe;
    absl::StatusOr<Process> child = server.Start(
        "list fds", "", {pipe.write_end.get(), kept.write_end.get()});
    pipe.write_end.Reset();
    EXPECT_EQ(ReadAll(pipe.read_end.get()),
              keeps ? absl::StrCat("0 1 2 ", kept.read_end.get(), " and 2")
                    : "0 1 2 and 2");
    EXPECT_EQ(child->Join()->exitcode(), 0);
    EXPECT_TRUE(server.Stop().ok());
  }
}

TEST(ForkSpareTest, TakesAsMuchAsARequestMay) {
  ForkServer server = Create();
  Pipe pipe;
  fcntl(pipe.write_end.get(), F_SETPIPE_SZ, 1 << 17);
  std::string argument((size_t{64} << 10) - 4, 'x');
  argument.back() = 'y';
  std::vector<int> fds(252, pipe.write_end.get());
  const pid_t spare = AwaitSpare(server);
  absl::StatusOr<Process> child = server.Start("echo", argument, fds);
  pipe.write_end.Reset();
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(child->pid(), spare);
  EXPECT_TRUE(ReadAll(pipe.read_end.get()) == argument);
  EXPECT_EQ(child->Join()->exitcode(), 0);
  EXPECT_TRUE(server.Stop().ok());
}

TEST(ForkSpareTest, IsReplacedIfItIsKilled) {
  ForkServer server = Create();
  const pid_t spare = AwaitSpare(server);
  ASSERT_EQ(kill(spare, SIGKILL), 0);
  AwaitEnd(spare);
  EXPECT_EQ(server.Start("exit", "7")->Join()->exitcode(), 7);
  EXPECT_NE(AwaitSpare(server), spare);
  EXPECT_EQ(server.Start("exit", "8")->Join()->exitcode(), 8);
  EXPECT_TRUE(server.Stop().ok());
}

// A server that cannot reap it for now asks a dead one.
TEST(ForkSpareTest, ADeadOneIsNotAsked) {
  ForkServer server = Create();
  const pid_t spare = AwaitSpare(server);
  ASSERT_EQ(kill(server.server().pid(), SIGSTOP), 0);
  ASSERT_EQ(kill(spare, SIGKILL), 0);
  AwaitEnd(spare);
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      server.Start("exit", "0", {}, absl::Milliseconds(20)).status()));
  ASSERT_EQ(kill(server.server().pid(), SIGCONT), 0);
  EXPECT_EQ(server.Start("exit", "9")->Join()->exitcode(), 9);
  EXPECT_TRUE(server.Stop().ok());
  EXPECT_THAT(ListChildren(), IsEmpty());
}

// A terminal's Ctrl-C, of which the server takes no notice either.
TEST(ForkSpareTest, IsNotInterruptedBeforeItRuns) {
  ForkServer server = Create();
  const pid_t spare = AwaitSpare(server);
  ASSERT_EQ(kill(spare, SIGINT), 0);
  absl::StatusOr<Process> child = server.Start("exit", "5");
  EXPECT_EQ(child->pid(), spare);
  EXPECT_EQ(child->Join()->exitcode(), 5);
  EXPECT_TRUE(server.Stop().ok());
}

TEST(ForkSpareTest, EndsWithTheServer) {
  {
    ForkServer server = Create();
    const pid_t spare = AwaitSpare(server);
    EXPECT_TRUE(server.Stop().ok());
    // At once, not a moment later.
    EXPECT_EQ(kill(spare, 0), -1);
  }
  {
    ForkServer server = Create();
    const pid_t spare = AwaitSpare(server);
    const UniqueFd end(static_cast<int>(syscall(SYS_pidfd_open, spare, 0)));
    ASSERT_TRUE(end.ok());
    ASSERT_TRUE(server.server().Kill().ok());
    pollfd ready = {.fd = end.get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&ready, 1, -1), 1);
    EXPECT_EQ(server.Stop().code(), absl::StatusCode::kUnavailable);
  }
}

}  // namespace
}  // namespace ipc::process
