// Programs that run as somebody else. Needs root, and a user namespace in which
// there is somebody else, so not Bazel's sandbox.
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/process.h"
#include "ipc/process/spawn.h"
#include "tests/ipc/process/shell.h"
#include "tests/testing/pipe.h"

namespace ipc::process {
namespace {

using testing::Pipe;
using testing::ReadAll;

using ::testing::HasSubstr;

// Whether the kernel lets this process become somebody else: not if it is not
// root, nor in a user namespace that has no other user.
bool MayBecome(uid_t uid) {
  const pid_t child = fork();
  if (child == 0) {
    _exit(setgroups(0, nullptr) == 0 && setresgid(uid, uid, uid) == 0 &&
                  setresuid(uid, uid, uid) == 0
              ? 0
              : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status == 0;
}

constexpr uid_t kNobody = 65534;

TEST(SpawnIdentityTest, IsAllOfIt) {
  if (!MayBecome(kNobody)) GTEST_SKIP() << "needs root, to become nobody";
  SpawnOptions options =
      Shell("grep -E '^(Uid|Gid|Groups|CapEff):' /proc/self/status");
  options.identity = Identity{.uid = kNobody, .gid = kNobody, .groups = {7, 9}};
  const int dumpable = prctl(PR_GET_DUMPABLE);
  EXPECT_EQ(OutputOf(options),
            "Uid:\t65534\t65534\t65534\t65534\n"
            "Gid:\t65534\t65534\t65534\t65534\n"
            "Groups:\t7 9 \n"
            "CapEff:\t0000000000000000\n");
  // The child changed this for us, too, while it shared our memory.
  EXPECT_EQ(prctl(PR_GET_DUMPABLE), dumpable);
  EXPECT_EQ(getuid(), 0U);
}

TEST(SpawnIdentityTest, DecidesWhatMayBeEnteredAndKeepsTheDeathSignal) {
  if (!MayBecome(kNobody)) GTEST_SKIP() << "needs root, to become nobody";
  std::string directory = ::testing::TempDir() + "/spawn_XXXXXX";
  ASSERT_NE(mkdtemp(directory.data()), nullptr);  // 0700, and ours
  SpawnOptions options = Shell("exit 0");
  options.working_directory = directory;
  ASSERT_EQ(Spawn(options)->Join()->exitcode(), 0);
  options.identity = Identity{.uid = kNobody, .gid = kNobody, .groups = {}};
  const absl::Status status = Spawn(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(status.message(), HasSubstr("chdir"));
  rmdir(directory.c_str());

  // A change of identity makes the kernel forget it, if it was asked before.
  Pipe alive;
  Pipe ready;
  const pid_t parent = fork();
  ASSERT_GE(parent, 0);
  if (parent == 0) {
    options = Shell("echo up; exec sleep 1000");
    options.standard_output = Redirect::Fd(ready.write_end.get());
    options.fds = {{9, alive.write_end.get()}};
    options.death_signal = SIGKILL;
    options.identity = Identity{.uid = kNobody, .gid = kNobody, .groups = {}};
    if (!Spawn(options).ok()) _exit(1);
    while (true) pause();
  }
  alive.write_end.Reset();
  char up[3];
  ASSERT_EQ(read(ready.read_end.get(), up, 3), 3);
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  EXPECT_EQ(ReadAll(alive.read_end.get()), "");
}

TEST(SpawnIdentityTest, ErrorsNameTheStep) {
  if (!MayBecome(kNobody)) GTEST_SKIP() << "needs root, to become nobody";
  const pid_t child = fork();
  if (child == 0) {
    // Without rights, the first of the three steps fails.
    if (setresuid(kNobody, kNobody, kNobody) != 0) _exit(1);
    SpawnOptions options = Shell("exit 0");
    options.identity = Identity{.uid = 0, .gid = 0, .groups = {}};
    const absl::Status status = Spawn(options).status();
    const bool good = status.code() == absl::StatusCode::kPermissionDenied &&
                      absl::StrContains(status.message(), "/bin/sh: setgroups");
    _exit(good ? 0 : 2);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace ipc::process
