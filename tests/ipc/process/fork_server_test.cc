#include "ipc/process/fork_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <iostream>
#include <memory>
#include <streambuf>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/wait_any.h"
#include "ipc/base/waitable.h"
#include "ipc/process/children.h"
#include "ipc/process/exit_status.h"
#include "ipc/process/process.h"
#include "ipc/process/spawn.h"
#include "tests/ipc/process/fork_functions.h"
#include "tests/testing/pipe.h"
#include "tests/testing/process_state.h"

namespace ipc::process {
namespace {

using testing::Pipe;
using testing::ProcessState;
using testing::ReadAll;

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Says that it runs, and waits to be killed.
int Hang(absl::string_view /*argument*/, const std::vector<UniqueFd>& fds) {
  if (!fds.empty()) (void)!write(fds[0].get(), "", 1);
  while (true) pause();
}

// The descriptors it has, but for the one that it is to write to.
int ListFds(absl::string_view /*argument*/, const std::vector<UniqueFd>& fds) {
  std::string text;
  for (int fd = 0; fd < 1024; ++fd) {
    if (fcntl(fd, F_GETFD) < 0 || fd == fds[0].get()) continue;
    absl::StrAppend(&text, fd, " ");
  }
  return Echo(text, fds);
}

ForkFunctions Functions() {
  return {{"exit", Exit},
          {"hang", Hang},
          {"echo", Echo},
          {"list fds", ListFds},
          {"abort",
           [](absl::string_view, const std::vector<UniqueFd>&) -> int {
             const rlimit no_core = {0, 0};
             setrlimit(RLIMIT_CORE, &no_core);
             signal(SIGABRT, SIG_DFL);
             abort();
           }},
          {"mask", [](absl::string_view, const std::vector<UniqueFd>&) {
             sigset_t mask;
             sigprocmask(SIG_BLOCK, nullptr, &mask);
             int blocked = 0;
             for (int i = 1; i < 32; ++i) blocked += sigismember(&mask, i);
             return blocked;
           }}};
}

ForkServer Create(const ForkServerOptions& options = {}) {
  absl::StatusOr<ForkServer> server = ForkServer::Create(Functions(), options);
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

// Starts "hang" and waits until it runs.
Process StartHanging(ForkServer& server) {
  Pipe up;
  absl::StatusOr<Process> child =
      server.Start("hang", "", {up.write_end.get()});
  EXPECT_TRUE(child.ok()) << child.status();
  char byte;
  EXPECT_EQ(read(up.read_end.get(), &byte, 1), 1);
  return *std::move(child);
}

TEST(ForkServerTest, ExitCodes) {
  ForkServer server = Create();
  for (const int code : {0, 1, 8, 255}) {
    absl::StatusOr<Process> child = server.Start("exit", absl::StrCat(code));
    ASSERT_TRUE(child.ok()) << child.status();
    EXPECT_EQ(child->Join()->exitcode(), code);
    EXPECT_EQ(child->Join()->exitcode(), code) << "again";
    EXPECT_FALSE(child->IsAlive());
    EXPECT_TRUE(child->Kill().ok());
  }
  EXPECT_EQ(server.Start("abort")->Join()->exitcode(), -SIGABRT);
  EXPECT_EQ(server.Start("mask")->Join()->exitcode(), 0);
  EXPECT_TRUE(server.Stop().ok());
}

TEST(ForkServerTest, SignalsAreExitCodes) {
  ForkServer server = Create();
  for (const int signal : {SIGTERM, SIGKILL, SIGINT}) {
    Process child = StartHanging(server);
    EXPECT_TRUE(child.IsAlive());
    EXPECT_EQ(child.Join(absl::ZeroDuration()).status().code(),
              absl::StatusCode::kDeadlineExceeded);
    const Waitable* waitables[] = {&child};
    EXPECT_THAT(*WaitAny(waitables, absl::ZeroDuration()), IsEmpty());
    ASSERT_TRUE(child.Signal(signal).ok());
    EXPECT_THAT(*WaitAny(waitables), ElementsAre(0));
    EXPECT_EQ(child.Join()->exitcode(), -signal);
  }
  EXPECT_TRUE(server.Stop().ok());
}

TEST(ForkServerTest, ArgumentsAndDescriptors) {
  ForkServer server = Create();
  for (const std::string& argument :
       {std::string(), std::string("a\0b", 3), std::string(60000, 'x')}) {
    Pipe pipe;
    absl::StatusOr<Process> child =
        server.Start("echo", argument, {pipe.write_end.get()});
    ASSERT_TRUE(child.ok()) << child.status();
    pipe.write_end.Reset();
    EXPECT_EQ(ReadAll(pipe.read_end.get()), argument);
    EXPECT_EQ(child->Join()->exitcode(), 0);
  }
  EXPECT_TRUE(server.Stop().ok());
}

TEST(ForkServerTest, AChildHoldsExactlyWhatItWasGranted) {
  Pipe leak;
  ForkServer server = Create();
  const Process other = StartHanging(server);
  Pipe pipe;
  absl::StatusOr<Process> child =
      server.Start("list fds", "", {pipe.write_end.get()});
  pipe.write_end.Reset();
  EXPECT_EQ(ReadAll(pipe.read_end.get()), "0 1 2 ");
  EXPECT_EQ(child->Join()->exitcode(), 0);
  ASSERT_TRUE(other.Kill().ok());
  EXPECT_TRUE(server.Stop().ok());

  ForkServer keeps = Create({.keep_fds = {leak.read_end.get()}});
  child = keeps.Start("list fds", "", {leak.write_end.get()});
  leak.write_end.Reset();
  EXPECT_EQ(ReadAll(leak.read_end.get()),
            absl::StrCat("0 1 2 ", leak.read_end.get(), " "));
  EXPECT_TRUE(keeps.Stop().ok());
}

TEST(ForkServerTest, WhatIsRefused) {
  ForkServer server = Create();
  EXPECT_THAT(server.Start("no such").status().message(),
              AllOf(HasSubstr("no function \"no such\""),
                    HasSubstr("echo, exit, hang")));
  EXPECT_EQ(server.Start("exit", std::string(1 << 20, '0')).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(server.Start("exit", "0", std::vector<int>(300, 0)).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(server.Start("exit", "0", {987654}).ok());
  // As many descriptors as there may be.
  EXPECT_EQ(
      server.Start("exit", "3", std::vector<int>(252, 0))->Join()->exitcode(),
      3);
  EXPECT_TRUE(server.Stop().ok());
  EXPECT_EQ(server.Start("exit").status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(ForkServerTest, OnlyForItsOwner) {
  ForkServer server = Create();
  absl::StatusOr<Process> other = Process::Start([&] {
    return absl::IsFailedPrecondition(server.Start("exit").status()) ? 0 : 1;
  });
  EXPECT_EQ(other->Join()->exitcode(), 0);
  EXPECT_EQ(server.Start("exit", "4")->Join()->exitcode(), 4);
  EXPECT_TRUE(server.Stop().ok());
}

TEST(ForkServerTest, StopWaitsForChildren) {
  ForkServer server = Create();
  Process child = StartHanging(server);
  EXPECT_EQ(server.Stop(absl::Milliseconds(20)).code(),
            absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(child.Terminate().ok());
  EXPECT_TRUE(server.Stop().ok());
  // Told before the server ended.
  EXPECT_EQ(child.Join()->exitcode(), -SIGTERM);
  EXPECT_THAT(ListChildren(), IsEmpty());
}

// CPython: test_forkserver_sigint. A terminal interrupts all its processes.
TEST(ForkServerTest, ForkserverSigint) {
  ForkServer server = Create();
  Process child = StartHanging(server);
  ASSERT_TRUE(server.server().Interrupt().ok());
  EXPECT_EQ(server.Start("exit", "5")->Join()->exitcode(), 5);
  // A child is as any other program.
  ASSERT_TRUE(child.Interrupt().ok());
  EXPECT_EQ(child.Join()->exitcode(), -SIGINT);
  EXPECT_TRUE(server.Stop().ok());
}

// CPython: test_forkserver_sigkill
TEST(ForkServerTest, ForkserverSigkill) {
  ForkServer server = Create();
  Process child = StartHanging(server);
  ASSERT_TRUE(server.server().Kill().ok());
  const Waitable* waitables[] = {&server.server()};
  EXPECT_THAT(*WaitAny(waitables), ElementsAre(0));
  const absl::Status status = server.Start("exit").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr(absl::StrCat(server.server().pid())),
                    HasSubstr("killed by SIGKILL: create another one")));

  // The child lives on, and can be waited for.
  EXPECT_TRUE(child.IsAlive());
  EXPECT_EQ(child.Join(absl::Milliseconds(20)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(child.Kill().ok());
  EXPECT_EQ(child.Join().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(child.IsAlive());
  EXPECT_EQ(server.Stop().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(ListChildren(), IsEmpty());

  server = Create();
  EXPECT_EQ(server.Start("exit", "6")->Join()->exitcode(), 6);
  EXPECT_TRUE(server.Stop().ok());
}

TEST(ForkServerTest, TheServerIsStopped) {
  ForkServer server = Create();
  ASSERT_TRUE(server.server().Signal(SIGSTOP).ok());
  Pipe pipe;
  EXPECT_EQ(
      server.Start("hang", "", {pipe.write_end.get()}, absl::Milliseconds(20))
          .status()
          .code(),
      absl::StatusCode::kDeadlineExceeded);
  pipe.write_end.Reset();
  ASSERT_TRUE(server.server().Signal(SIGCONT).ok());
  EXPECT_EQ(server.Start("exit", "7")->Join()->exitcode(), 7);
  // What was started too late is killed, upon which its stream ends.
  ReadAll(pipe.read_end.get());
  EXPECT_TRUE(server.Stop().ok());
}

// Takes all descriptors but `left` of a limit that it sets, for as long as it
// lives.
class FdsTaken {
 public:
  FdsTaken(rlim_t limit, size_t left) {
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    const rlimit lower = {limit, before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &lower), 0);
    while (true) {
      UniqueFd fd(fcntl(0, F_DUPFD_CLOEXEC, 0));
      if (!fd.ok()) break;
      taken_.push_back(std::move(fd));
    }
    EXPECT_GE(taken_.size(), left);
    taken_.resize(taken_.size() - left);
  }
  ~FdsTaken() { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0); }

 private:
  rlimit before_;
  std::vector<UniqueFd> taken_;
};

TEST(ForkServerTest, NoChildIsStartedThatNobodyCouldHave) {
  ForkServer server = Create();
  {
    const FdsTaken taken(200, 2);
    for (int i = 0; i < 5; ++i) {
      EXPECT_EQ(server.Start("hang").status().code(),
                absl::StatusCode::kResourceExhausted);
    }
  }
  {
    const FdsTaken taken(200, 3);
    EXPECT_EQ(server.Start("exit", "3")->Join()->exitcode(), 3);
  }
  // No child is left for which it would wait.
  EXPECT_TRUE(server.Stop(absl::Seconds(10)).ok());
}

TEST(ForkServerTest, AChildWhoseDescriptorDoesNotFitIsKilled) {
  ForkServer server = Create();
  ASSERT_TRUE(server.server().Signal(SIGSTOP).ok());
  std::atomic<pid_t> tid = 0;
  std::thread starter([&] {
    tid = gettid();
    const absl::Status status = server.Start("hang").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(status.message(), HasSubstr("was killed"));
  });
  // Until it has sent its request and waits.
  while (tid == 0 || ProcessState(tid) != 'S') sched_yield();
  {
    const FdsTaken taken(200, 0);
    rlimit limit;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    // Not even for the one that it has kept free.
    limit.rlim_cur = 3;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ASSERT_TRUE(server.server().Signal(SIGCONT).ok());
    starter.join();
  }
  EXPECT_TRUE(server.Stop(absl::Seconds(10)).ok());
}

TEST(ForkServerTest, ATimeoutDoesNotWaitForOthers) {
  ForkServer server = Create();
  ASSERT_TRUE(server.server().Signal(SIGSTOP).ok());
  std::atomic<pid_t> tid = 0;
  std::thread patient([&] {
    tid = gettid();
    EXPECT_EQ(server.Start("exit", "3")->Join()->exitcode(), 3);
  });
  // Until it has its turn, and waits.
  while (tid == 0 || ProcessState(tid) != 'S') sched_yield();
  EXPECT_EQ(
      server.Start("exit", "4", {}, absl::Milliseconds(20)).status().code(),
      absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(server.server().Signal(SIGCONT).ok());
  patient.join();
  EXPECT_TRUE(server.Stop().ok());
}

// Stops a server, for its test to go on with it, when it has looked whether its
// client still wants a child, and is about to fork: then it flushes std::cout.
// It has no spare child, as it would fork that one before.
class ForksSlowly : public std::streambuf {
 public:
  ForksSlowly() : before_(std::cout.rdbuf(this)) {}
  ~ForksSlowly() override { std::cout.rdbuf(before_); }
  ForksSlowly(const ForksSlowly&) = delete;
  ForksSlowly& operator=(const ForksSlowly&) = delete;

  ForkServer CreateServer() const {
    return Create({.keep_fds = {event_.write_end.get()}, .keep_spare = false});
  }

  // Starts "hang" with `fd`, so that the server stops there, and gives up.
  void StartInVain(ForkServer& server, int fd) const {
    do {
      EXPECT_EQ(server.Start("hang", "", {fd}, absl::Milliseconds(20))
                    .status()
                    .code(),
                absl::StatusCode::kDeadlineExceeded);
      // The time may have passed before the server looked.
    } while (!HasStopped());
    while (ProcessState(server.server().pid()) != 'T') sched_yield();
  }

 protected:
  int sync() override {
    if (getpid() == owner_ || is_done_) return 0;
    is_done_ = true;
    (void)!write(event_.write_end.get(), "", 1);
    return raise(SIGSTOP);
  }

 private:
  bool HasStopped() const {
    pollfd event = {event_.read_end.get(), POLLIN, 0};
    return poll(&event, 1, 0) == 1;
  }

  std::streambuf* const before_;
  const pid_t owner_ = getpid();
  bool is_done_ = false;
  Pipe event_;
};

// Returns when the child runs that was started in vain, and the server has
// answered, though nobody is left to whom.
void LetItFork(const ForkServer& server, const Pipe& up) {
  ASSERT_TRUE(server.server().Signal(SIGCONT).ok());
  char byte;
  ASSERT_EQ(read(up.read_end.get(), &byte, 1), 1);
  while (ProcessState(server.server().pid()) != 'S') sched_yield();
}

TEST(ForkServerTest, StopKillsWhatWasStartedTooLate) {
  const ForksSlowly slowly;
  Pipe up;
  ForkServer server = slowly.CreateServer();
  slowly.StartInVain(server, up.write_end.get());
  LetItFork(server, up);
  EXPECT_TRUE(server.Stop().ok());
  up.write_end.Reset();
  EXPECT_EQ(ReadAll(up.read_end.get()), "");
}

TEST(ForkServerTest, StopKillsWhatIsStartedAfterIt) {
  const ForksSlowly slowly;
  Pipe up;
  ForkServer server = slowly.CreateServer();
  slowly.StartInVain(server, up.write_end.get());
  EXPECT_EQ(server.Stop(absl::Milliseconds(20)).code(),
            absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(server.server().Signal(SIGCONT).ok());
  EXPECT_TRUE(server.Stop().ok());
  up.write_end.Reset();
  ReadAll(up.read_end.get());
}

TEST(ForkServerTest, TheDestructorKillsWhatWasStartedTooLate) {
  const ForksSlowly slowly;
  Pipe up;
  pid_t pid = 0;
  {
    ForkServer server = slowly.CreateServer();
    pid = server.server().pid();
    slowly.StartInVain(server, up.write_end.get());
    LetItFork(server, up);
  }
  up.write_end.Reset();
  EXPECT_EQ(ReadAll(up.read_end.get()), "");
  int status = -1;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
}

// The next start kills it, and has its own child.
TEST(ForkServerTest, TheNextStartKillsWhatWasStartedTooLate) {
  const ForksSlowly slowly;
  Pipe up;
  ForkServer server = slowly.CreateServer();
  slowly.StartInVain(server, up.write_end.get());
  LetItFork(server, up);
  EXPECT_EQ(server.Start("exit", "6")->Join()->exitcode(), 6);
  up.write_end.Reset();
  EXPECT_EQ(ReadAll(up.read_end.get()), "");
  EXPECT_TRUE(server.Stop().ok());
}

// A copy of the object in a child is none of the socket's owner.
TEST(ForkServerTest, AChildDestroysItsCopy) {
  auto server = std::make_unique<ForkServer>(Create());
  absl::StatusOr<Process> other = Process::Start([&] {
    if (!absl::IsFailedPrecondition(server->Stop())) return 1;
    server.reset();
    return 0;
  });
  EXPECT_EQ(other->Join()->exitcode(), 0);
  EXPECT_EQ(server->Start("exit", "4")->Join()->exitcode(), 4);
  EXPECT_TRUE(server->Stop().ok());
}

// What becomes of server and child when the client is killed; each holds the
// end of a pipe for as long as it lives.
void KillClient(int death_signal, std::string* server_end,
                std::string* child_end) {
  Pipe server_alive, child_alive, up;
  absl::StatusOr<Process> client = Process::Start([&]() -> int {
    ForkServer server = Create({.keep_fds = {}, .death_signal = death_signal});
    absl::StatusOr<Process> child = server.Start(
        "hang", "", {up.write_end.get(), child_alive.write_end.get()});
    if (!child.ok()) return 1;
    const pid_t pids[] = {server.server().pid(), child->pid()};
    (void)!write(server_alive.write_end.get(), pids, sizeof(pids));
    // Another that holds the client's end of the socket must not matter.
    absl::StatusOr<Process> heir = Process::Start(
        [] {
          while (true) pause();
          return 0;
        },
        {.death_signal = SIGKILL});
    while (true) pause();
  });
  ASSERT_TRUE(client.ok());
  pid_t pids[2];
  ASSERT_EQ(read(server_alive.read_end.get(), pids, sizeof(pids)),
            static_cast<ssize_t>(sizeof(pids)));
  char byte;
  ASSERT_EQ(read(up.read_end.get(), &byte, 1), 1);
  const UniqueFd server_pidfd(syscall(SYS_pidfd_open, pids[0], 0));
  const UniqueFd child_pidfd(syscall(SYS_pidfd_open, pids[1], 0));
  ASSERT_TRUE(client->Kill().ok());
  EXPECT_EQ(client->Join()->exitcode(), -SIGKILL);
  pollfd server_ended = {server_pidfd.get(), POLLIN, 0};
  EXPECT_EQ(poll(&server_ended, 1, -1), 1);
  *server_end = "ended";
  pollfd child_ended = {child_pidfd.get(), POLLIN, 0};
  if (death_signal != 0) {
    EXPECT_EQ(poll(&child_ended, 1, -1), 1);
  }
  *child_end = poll(&child_ended, 1, 0) == 1 ? "ended" : "alive";
  kill(pids[1], SIGKILL);
}

TEST(ForkServerTest, TheClientIsKilled) {
  std::string server, child;
  KillClient(0, &server, &child);
  EXPECT_EQ(server, "ended");
  EXPECT_EQ(child, "alive");
  KillClient(SIGKILL, &server, &child);
  EXPECT_EQ(server, "ended");
  EXPECT_EQ(child, "ended");
}

TEST(ForkServerTest, FromManyThreads) {
  ForkServer server = Create();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        absl::StatusOr<Process> child = server.Start("exit", absl::StrCat(t));
        ASSERT_TRUE(child.ok()) << child.status();
        EXPECT_EQ(child->Join()->exitcode(), t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(server.Stop().ok());
}

TEST(ForkServerTest, ManyLeaveNothingBehind) {
  ForkServer server = Create();
  const auto count_fds = [](pid_t pid) {
    int open = 0;
    const std::string directory = absl::StrCat("/proc/", pid, "/fd/");
    for (int fd = 0; fd < 256; ++fd) {
      open += faccessat(AT_FDCWD, absl::StrCat(directory, fd).c_str(), F_OK,
                        AT_SYMLINK_NOFOLLOW) == 0;
    }
    return open;
  };
  ASSERT_EQ(server.Start("exit", "0")->Join()->exitcode(), 0);
  const int ours = count_fds(getpid());
  const int servers = count_fds(server.server().pid());
  for (int i = 0; i < 2000; ++i) {
    absl::StatusOr<Process> child = server.Start("exit", absl::StrCat(i & 127));
    ASSERT_TRUE(child.ok()) << child.status();
    // Half of them are not joined.
    if (i % 2 == 0) {
      ASSERT_EQ(child->Join()->exitcode(), i & 127);
    }
  }
  EXPECT_EQ(server.Start("exit", "5")->Join()->exitcode(), 5);
  EXPECT_EQ(count_fds(getpid()), ours);
  // No child is left that could still be to report.
  absl::StatusOr<Process> last = server.Start("exit", "0");
  EXPECT_EQ(last->Join()->exitcode(), 0);
  // Besides the last one's report those of a spare child, which was there at
  // one time and not at the other.
  EXPECT_LE(count_fds(server.server().pid()), servers + 3);
  EXPECT_TRUE(server.Stop().ok());
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a zombie, or a child";
}

TEST(ForkServerTest, AProgramThatIsAServer) {
  SpawnOptions program;
  program.argv = {"tests/ipc/process/forks_on_request"};
  absl::StatusOr<ForkServer> server = ForkServer::CreateFromProgram(program);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(server->Start("length", "hello")->Join()->exitcode(), 5);
  EXPECT_TRUE(server->Stop().ok());

  // One that is none.
  program.argv = {"/bin/true"};
  server = ForkServer::CreateFromProgram(program);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_THAT(server->Start("length").status().message(),
              HasSubstr("exited with 0"));
  program.fds[kForkServerFd] = 0;
  EXPECT_EQ(ForkServer::CreateFromProgram(program).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ipc::process
