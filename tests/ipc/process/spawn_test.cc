#include "ipc/process/spawn.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/process.h"
#include "tests/ipc/process/shell.h"
#include "tests/testing/pipe.h"

namespace ipc::process {
namespace {

using testing::Pipe;
using testing::ReadAll;

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SpawnTest, ExitCodes) {
  EXPECT_EQ(Spawn(Shell("exit 0"))->Join()->exitcode(), 0);
  EXPECT_EQ(Spawn(Shell("exit 7"))->Join()->exitcode(), 7);
  absl::StatusOr<ExitStatus> killed = Spawn(Shell("kill -9 $$"))->Join();
  ASSERT_TRUE(killed.ok());
  EXPECT_EQ(killed->exitcode(), -SIGKILL);
  EXPECT_EQ(killed->ToString(), "killed by SIGKILL");
}

TEST(SpawnTest, ChildHoldsExactlyTheFdsItWasGiven) {
  // Inheritable on purpose: even those must not leak.
  Pipe leak;
  const UniqueFd inheritable(fcntl(leak.read_end.get(), F_DUPFD, 100));
  Pipe granted;
  SpawnOptions options;
  options.argv = {"/bin/ls", "/proc/self/fd"};
  options.fds = {{7, granted.write_end.get()}};
  // ls itself opens the directory as the lowest free number, 3.
  EXPECT_THAT(absl::StrSplit(OutputOf(options), '\n'),
              ElementsAre("0", "1", "2", "3", "7", ""));
}

TEST(SpawnTest, FdsMaySwapTheirNumbers) {
  Pipe a, b;
  SpawnOptions options = Shell(absl::StrCat("echo a >&", b.write_end.get(),
                                            "; echo b >&", a.write_end.get()));
  options.fds = {{b.write_end.get(), a.write_end.get()},
                 {a.write_end.get(), b.write_end.get()}};
  // dash knows single digits only.
  ASSERT_LT(b.write_end.get(), 10);
  absl::StatusOr<Process> child = Spawn(options);
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(child->Join()->exitcode(), 0);
  a.write_end.Reset();
  b.write_end.Reset();
  EXPECT_EQ(ReadAll(a.read_end.get()), "a\n");
  EXPECT_EQ(ReadAll(b.read_end.get()), "b\n");
}

TEST(SpawnTest, MinusOneIsDevNull) {
  SpawnOptions options = Shell("readlink /proc/self/fd/0");
  options.fds = {{0, -1}};
  EXPECT_EQ(OutputOf(options), "/dev/null\n");
}

TEST(SpawnTest, EnvironmentIsWhatIsGivenAndThePid) {
  SpawnOptions options;
  options.argv = {"/usr/bin/env"};
  options.env = {"A=1"};
  options.pid_env = "LISTEN_PID";
  Pipe out;
  options.fds[1] = out.write_end.get();
  absl::StatusOr<Process> child = Spawn(options);
  ASSERT_TRUE(child.ok()) << child.status();
  out.write_end.Reset();
  EXPECT_EQ(ReadAll(out.read_end.get()),
            absl::StrCat("A=1\nLISTEN_PID=", child->pid(), "\n"));
  EXPECT_EQ(child->Join()->exitcode(), 0);
}

TEST(SpawnTest, WorkingDirectoryAndLimits) {
  SpawnOptions options = Shell("pwd; ulimit -Sn; ulimit -Hn");
  options.working_directory = "/proc";
  options.limits = {{RLIMIT_NOFILE, {.rlim_cur = 17, .rlim_max = 18}}};
  EXPECT_EQ(OutputOf(options), "/proc\n17\n18\n");
}

TEST(SpawnTest, SignalsAreDefaultAndUnblockedInTheChild) {
  signal(SIGUSR1, SIG_IGN);
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  SpawnOptions options = Shell("grep -E 'Sig(Blk|Ign)' /proc/self/status");
  const std::string text = OutputOf(options);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  signal(SIGUSR1, SIG_DFL);
  EXPECT_THAT(text, HasSubstr("SigBlk:\t0000000000000000"));
  // 32 and 33 are glibc's own; posix_spawn, by which a test may have been
  // started, ignores them, and sigaction does not touch them.
  EXPECT_THAT(text, ContainsRegex("SigIgn:\t0000000[01][08]0000000"));
}

TEST(SpawnTest, FailuresNameTheStepAndTheProgram) {
  SpawnOptions options;
  options.argv = {"/no/such/program"};
  absl::StatusOr<Process> child = Spawn(options);
  EXPECT_EQ(child.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(child.status().message(),
              HasSubstr("spawning /no/such/program: execve: No such file"));

  options.argv = {"/etc/passwd"};
  EXPECT_EQ(Spawn(options).status().code(),
            absl::StatusCode::kPermissionDenied);

  options = Shell("true");
  options.working_directory = "/no/such/directory";
  EXPECT_THAT(Spawn(options).status().message(), HasSubstr("chdir"));

  options = Shell("true");
  options.fds = {{3, 987654}};
  EXPECT_THAT(Spawn(options).status().message(),
              HasSubstr("duplicating a granted fd: Bad file descriptor"));

  EXPECT_EQ(Spawn(SpawnOptions()).status().code(),
            absl::StatusCode::kInvalidArgument);
  // Nothing is left of the children that failed.
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(SpawnTest, Umask) {
  SpawnOptions options = Shell("umask");
  options.umask = 0027;
  EXPECT_EQ(OutputOf(options), "0027\n");
  // Ours is as it was.
  const mode_t ours = umask(0);
  umask(ours);
  options.umask = std::nullopt;
  EXPECT_EQ(OutputOf(options), absl::StrFormat("%04o\n", ours));
}

TEST(SpawnTest, ProcessGroup) {
  // Both wait for the end of their standard input.
  Pipe hold;
  SpawnOptions options;
  options.argv = {"/bin/cat"};
  options.standard_input = Redirect::Fd(hold.read_end.get());
  options.process_group = 0;
  absl::StatusOr<Process> leader = Spawn(options);
  ASSERT_TRUE(leader.ok()) << leader.status();
  EXPECT_EQ(getpgid(leader->pid()), leader->pid());
  options.process_group = leader->pid();
  absl::StatusOr<Process> member = Spawn(options);
  ASSERT_TRUE(member.ok()) << member.status();
  EXPECT_EQ(getpgid(member->pid()), leader->pid());
  EXPECT_EQ(getsid(member->pid()), getsid(0));

  // The group is reached as a whole.
  ASSERT_EQ(kill(-leader->pid(), SIGTERM), 0);
  EXPECT_EQ(leader->Join()->exitcode(), -SIGTERM);
  EXPECT_EQ(member->Join()->exitcode(), -SIGTERM);

  // It has gone with its last member.
  EXPECT_THAT(Spawn(options).status().message(),
              HasSubstr("setpgid to its process group"));
  options.new_session = true;
  EXPECT_EQ(Spawn(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(SpawnTest, NewSession) {
  Pipe hold;
  SpawnOptions options;
  options.argv = {"/bin/cat"};
  options.standard_input = Redirect::Fd(hold.read_end.get());
  options.new_session = true;
  absl::StatusOr<Process> child = Spawn(options);
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(getsid(child->pid()), child->pid());
  hold.write_end.Reset();
  EXPECT_EQ(child->Join()->exitcode(), 0);
}

TEST(SpawnTest, RedirectsToPipes) {
  UniqueFd input, output, errors;
  SpawnOptions options = Shell("read line; echo out $line; echo err >&2");
  options.standard_input = Redirect::Pipe(&input);
  options.standard_output = Redirect::Pipe(&output);
  options.standard_error = Redirect::Pipe(&errors);
  absl::StatusOr<Process> child = Spawn(options);
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(fcntl(input.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(write(input.get(), "x\n", 2), 2);
  EXPECT_EQ(ReadAll(output.get()), "out x\n");
  EXPECT_EQ(ReadAll(errors.get()), "err\n");
  EXPECT_EQ(child->Join()->exitcode(), 0);
}

TEST(SpawnTest, RedirectsToFiles) {
  const std::string path =
      absl::StrCat(::testing::TempDir(), "/redirected_", getpid());
  SpawnOptions options = Shell("echo one; echo two >&2");
  options.standard_output = Redirect::File(path, O_WRONLY | O_CREAT | O_EXCL);
  options.standard_error = Redirect::Null();
  ASSERT_EQ(Spawn(options)->Join()->exitcode(), 0);
  options.standard_output = Redirect::Null();
  options.standard_error = Redirect::File(path, O_WRONLY | O_APPEND);
  ASSERT_EQ(Spawn(options)->Join()->exitcode(), 0);
  options = Shell("cat");
  options.standard_input = Redirect::File(path, O_RDONLY);
  EXPECT_EQ(OutputOf(options), "one\ntwo\n");
  unlink(path.c_str());

  const absl::Status status = Spawn(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(),
              HasSubstr(absl::StrCat("spawning /bin/sh: open ", path)));
}

// Such as the descriptor of a pipe that was closed.
TEST(SpawnTest, ANegativeDescriptorIsNoDevNull) {
  for (const int fd : {-1, -5}) {
    SpawnOptions options = Shell("exit 0");
    options.standard_output = Redirect::Fd(fd);
    const absl::Status status = Spawn(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(status.message(),
                HasSubstr(absl::StrCat(fd, " is no descriptor")));
  }
  SpawnOptions options = Shell("exit 0");
  options.fds = {{3, -5}};
  EXPECT_EQ(Spawn(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(SpawnTest, AStandardStreamIsGivenOnce) {
  SpawnOptions options = Shell("exit 0");
  options.fds = {{1, -1}};
  options.standard_output = Redirect::Null();
  EXPECT_THAT(Spawn(options).status().message(), HasSubstr("given twice"));
}

TEST(SpawnTest, AFailureHandsNoPipeBack) {
  UniqueFd output;
  SpawnOptions options;
  options.argv = {"/no/such/program"};
  options.standard_output = Redirect::Pipe(&output);
  EXPECT_FALSE(Spawn(options).ok());
  EXPECT_FALSE(output.ok());
}

TEST(SpawnTest, DeathSignalFollowsTheParent) {
  // A parent in between, which spawns a child and is killed.
  Pipe alive;
  Pipe ready;
  const pid_t parent = fork();
  ASSERT_GE(parent, 0);
  if (parent == 0) {
    SpawnOptions options = Shell("echo up; exec sleep 1000");
    options.fds = {{1, ready.write_end.get()}, {9, alive.write_end.get()}};
    options.death_signal = SIGKILL;
    if (!Spawn(options).ok()) _exit(1);
    while (true) pause();
  }
  alive.write_end.Reset();
  char up[3];
  ASSERT_EQ(read(ready.read_end.get(), up, 3), 3);
  pollfd p = {alive.read_end.get(), POLLIN, 0};
  ASSERT_EQ(poll(&p, 1, 0), 0) << "the child should live";
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  // End of file, because the only writer, the child, is gone.
  EXPECT_EQ(ReadAll(alive.read_end.get()), "");
}

TEST(ProcessTest, JoinTimeout) {
  absl::StatusOr<Process> child = Spawn(Shell("exec sleep 1000"));
  ASSERT_TRUE(child.ok());
  const absl::Time start = absl::Now();
  EXPECT_EQ(child->Join(absl::Milliseconds(30)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(30));
  EXPECT_TRUE(child->IsAlive());
  EXPECT_TRUE(child->Terminate().ok());
  EXPECT_EQ(*child->Join(), ExitStatus::Killed(SIGTERM));
  EXPECT_FALSE(child->IsAlive());
  // Once ended, signals and joins are without effect.
  EXPECT_TRUE(child->Kill().ok());
  EXPECT_EQ(*child->Join(), ExitStatus::Killed(SIGTERM));
}

TEST(ProcessTest, SentinelFiresWhileAGrandchildLives) {
  Pipe grandchild_gone;
  SpawnOptions options = Shell("sleep 1000 & echo $! >&8");
  options.fds = {{8, grandchild_gone.write_end.get()}};
  absl::StatusOr<Process> child = Spawn(options);
  ASSERT_TRUE(child.ok());
  pollfd p = {child->poll_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, -1), 1);
  EXPECT_EQ(child->Join()->exitcode(), 0);
  char pid[16] = {};
  ASSERT_GT(read(grandchild_gone.read_end.get(), pid, sizeof(pid) - 1), 0);
  EXPECT_EQ(kill(std::stoi(pid), SIGKILL), 0);
}

TEST(ProcessTest, ReapedBySomebodyElseIsAnErrorNotAGuess) {
  absl::StatusOr<Process> child = Spawn(Shell("exit 3"));
  ASSERT_TRUE(child.ok());
  ASSERT_EQ(waitpid(child->pid(), nullptr, 0), child->pid());
  EXPECT_EQ(child->Join().status().code(), absl::StatusCode::kInternal);
}

TEST(SpawnTest, FromManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 50; ++i) {
        absl::StatusOr<Process> child = Spawn(Shell(absl::StrCat("exit ", t)));
        ASSERT_TRUE(child.ok()) << child.status();
        EXPECT_EQ(child->Join()->exitcode(), t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(SignalNameTest, BothWays) {
  EXPECT_EQ(SignalName(SIGTERM), "SIGTERM");
  EXPECT_EQ(SignalByName("SIGTERM"), SIGTERM);
  EXPECT_EQ(SignalByName("TERM"), SIGTERM);
  EXPECT_EQ(SignalByName("SIGNONE"), 0);
}

}  // namespace
}  // namespace ipc::process
