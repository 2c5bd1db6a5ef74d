// Process::Start, with the behaviours of CPython's _TestProcess and
// _TestSubclassingProcess under their names, but for these:
//
//   test_current, test_parent_process_attributes, test_subclassing,
//   test_process_mainthread_native_id, test_args_argument
//                           a Process is a handle that the parent has, without
//                           name, arguments or methods to override: a function
//                           captures what it needs, and asks getpid and gettid
//   test_set_executable, test_support__missing_main
//                           nothing is imported anew; to execute a program is
//                           Spawn's, see spawn_test.cc
//   test_cpu_count          std::thread::hardware_concurrency
//   test_wait_for_threads   threads that the function has started end with it:
//                           it joins those that are to come to their end
//   test_interrupt_no_handler
//                           SIGINT ends a child as it ends any C++ program, see
//                           Interrupt: there is no KeyboardInterrupt
//   test_forkserver_sigint, test_forkserver_sigkill
//                           in fork_server_test.cc
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/wait_any.h"
#include "ipc/base/waitable.h"
#include "ipc/process/children.h"
#include "ipc/process/exit_status.h"
#include "ipc/process/process.h"
#include "tests/testing/pipe.h"

namespace ipc::process {
namespace {

using testing::Pipe;
using testing::ReadAll;

// CPython: test_process
TEST(ProcessStartTest, Process) {
  Pipe pipe;
  const int number = 7;
  absl::StatusOr<Process> child = Process::Start([&] {
    const std::string text = std::to_string(getpid()) + " " +
                             std::to_string(getppid()) + " " +
                             std::to_string(number);
    return write(pipe.write_end.get(), text.data(), text.size()) > 0 ? 0 : 1;
  });
  ASSERT_TRUE(child.ok()) << child.status();
  pipe.write_end.Reset();
  EXPECT_EQ(ReadAll(pipe.read_end.get()), std::to_string(child->pid()) + " " +
                                              std::to_string(getpid()) + " 7");
  EXPECT_EQ(child->Join()->exitcode(), 0);
  EXPECT_FALSE(child->IsAlive());
}

// CPython: test_many_processes
TEST(ProcessStartTest, ManyProcesses) {
  std::vector<Process> sleepers;
  for (int i = 0; i < 10; ++i) {
    absl::StatusOr<Process> child = Process::Start([]() -> int {
      while (true) pause();
    });
    ASSERT_TRUE(child.ok()) << child.status();
    sleepers.push_back(*std::move(child));
  }
  for (const Process& child : sleepers) ASSERT_TRUE(child.Terminate().ok());
  for (Process& child : sleepers) {
    EXPECT_EQ(child.Join()->exitcode(), -SIGTERM);
  }
}

// A child that lives until `end` ends it, of which `signal` is what is told.
void EndsBy(absl::Status (Process::*end)() const, int signal) {
  absl::StatusOr<Process> child = Process::Start([]() -> int {
    while (true) pause();
  });
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(child->Join(absl::ZeroDuration()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(child->IsAlive());
  ASSERT_TRUE(((*child).*end)().ok());
  EXPECT_EQ(child->Join()->exitcode(), -signal);
  EXPECT_FALSE(child->IsAlive());
  EXPECT_TRUE(((*child).*end)().ok()) << "too late, and without effect";
}

// CPython: test_terminate
TEST(ProcessStartTest, Terminate) { EndsBy(&Process::Terminate, SIGTERM); }

// CPython: test_kill
TEST(ProcessStartTest, Kill) { EndsBy(&Process::Kill, SIGKILL); }

// CPython: test_interrupt
TEST(ProcessStartTest, Interrupt) { EndsBy(&Process::Interrupt, SIGINT); }

// CPython: test_close. What a handle holds goes with it, not with the child.
TEST(ProcessStartTest, Close) {
  Pipe hold;
  int pidfd = -1;
  pid_t pid = -1;
  {
    absl::StatusOr<Process> child = Process::Start([&] {
      hold.write_end.Reset();
      return ReadAll(hold.read_end.get()).empty() ? 3 : 1;
    });
    ASSERT_TRUE(child.ok()) << child.status();
    pidfd = child->poll_fd();
    pid = child->pid();
    EXPECT_EQ(fcntl(pidfd, F_GETFD), FD_CLOEXEC);
  }
  EXPECT_EQ(fcntl(pidfd, F_GETFD), -1);
  hold.write_end.Reset();
  int status = -1;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WEXITSTATUS(status), 3) << "it has lived on";
}

// CPython: test_parent_process. Its parent is known to a child by number, and
// by a pidfd that it inherits, which tells when that parent has ended.
TEST(ProcessStartTest, ParentProcess) {
  Pipe told;
  absl::StatusOr<Process> parent = Process::Start([&]() -> int {
    const pid_t self = getpid();
    const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, self, 0)));
    absl::StatusOr<Process> child = Process::Start([&] {
      const WaitableFd end(pidfd.get());
      const Waitable* const ends[] = {&end};
      const bool lives =
          getppid() == self && WaitAny(ends, absl::ZeroDuration())->empty();
      (void)!write(told.write_end.get(), lives ? "lives" : "error", 5);
      const bool ended = WaitAny(ends)->size() == 1 && getppid() != self;
      (void)!write(told.write_end.get(), ended ? "ended" : "error", 5);
      return 0;
    });
    while (true) pause();
  });
  ASSERT_TRUE(parent.ok()) << parent.status();
  told.write_end.Reset();
  char text[5];
  ASSERT_EQ(read(told.read_end.get(), text, sizeof(text)), 5);
  EXPECT_EQ(std::string(text, 5), "lives");
  ASSERT_TRUE(parent->Kill().ok());
  EXPECT_EQ(parent->Join()->exitcode(), -SIGKILL);
  EXPECT_EQ(ReadAll(told.read_end.get()), "ended");
}

// CPython: test_sys_exit
TEST(ProcessStartTest, SysExit) {
  for (const int code : {0, 1, 8, 255}) {
    EXPECT_EQ(Process::Start([&] { return code; })->Join()->exitcode(), code);
  }
}

// CPython: test_uncaught_exception, which is exit code 1 there.
TEST(ProcessStartTest, UncaughtException) {
  Pipe pipe;
  absl::StatusOr<Process> child = absl::UnknownError("not started");
  try {
    child = Process::Start([&]() -> int {
      dup2(pipe.write_end.get(), STDERR_FILENO);
      throw std::runtime_error("uncaught");
    });
  } catch (...) {
    // In the child, if at all.
    _exit(99);
  }
  pipe.write_end.Reset();
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(child->Join()->exitcode(), -SIGABRT);
  EXPECT_THAT(ReadAll(pipe.read_end.get()), ::testing::HasSubstr("uncaught"));
}

// CPython: test_stdio_flush, and that nothing is printed twice.
TEST(ProcessStartTest, StdioFlush) {
  Pipe pipe;
  absl::StatusOr<Process> outer = Process::Start([&] {
    dup2(pipe.write_end.get(), STDOUT_FILENO);
    printf("parent ");
    std::cout << "too ";
    absl::StatusOr<Process> inner = Process::Start([] {
      printf("child ");
      std::cout << "as well ";
      return 0;
    });
    if (!inner.ok() || inner->Join()->exitcode() != 0) return 1;
    printf("end");
    return 0;
  });
  pipe.write_end.Reset();
  ASSERT_TRUE(outer.ok());
  EXPECT_EQ(outer->Join()->exitcode(), 0);
  EXPECT_EQ(ReadAll(pipe.read_end.get()), "parent too child as well end");
}

// CPython: test_stderr_flush
TEST(ProcessStartTest, StderrFlush) {
  Pipe pipe;
  absl::StatusOr<Process> child = Process::Start([&] {
    dup2(pipe.write_end.get(), STDERR_FILENO);
    static char buffer[BUFSIZ];
    setvbuf(stderr, buffer, _IOFBF, sizeof(buffer));
    fprintf(stderr, "by stdio ");
    std::clog << "and by a stream";
    return 0;
  });
  pipe.write_end.Reset();
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(ReadAll(pipe.read_end.get()), "by stdio and by a stream");
  EXPECT_EQ(child->Join()->exitcode(), 0);
}

// Nobody else's files are flushed, so who reads one is not waited for.
TEST(ProcessStartTest, WhileAnotherThreadReadsStandardInput) {
  Pipe input, started;
  absl::StatusOr<Process> outer = Process::Start([&] {
    dup2(input.read_end.get(), STDIN_FILENO);
    std::thread reader([] {
      char line[8];
      (void)!fgets(line, sizeof(line), stdin);
    });
    // For as long as it reads, stdin is its.
    while (ftrylockfile(stdin) == 0) {
      funlockfile(stdin);
      sched_yield();
    }
    absl::StatusOr<Process> inner = Process::Start([] { return 5; });
    const bool is_good = inner.ok() && inner->Join()->exitcode() == 5;
    (void)!write(started.write_end.get(), "", 1);
    reader.join();
    return is_good ? 0 : 1;
  });
  ASSERT_TRUE(outer.ok()) << outer.status();
  char byte;
  ASSERT_EQ(read(started.read_end.get(), &byte, 1), 1);
  ASSERT_EQ(write(input.write_end.get(), "x\n", 2), 2);
  EXPECT_EQ(outer->Join()->exitcode(), 0);
}

// What the parent has is the parent's to clean up.
TEST(ProcessStartTest, NoDestructorsNorExitHandlersInTheChild) {
  Pipe pipe;
  struct Guard {
    ~Guard() { EXPECT_EQ(write(fd, "x", 1), 1); }
    int fd;
  };
  {
    const Guard guard = {pipe.write_end.get()};
    absl::StatusOr<Process> child = Process::Start([&] {
      static int fd;
      fd = guard.fd;
      return atexit([] { (void)!write(fd, "y", 1); });
    });
    ASSERT_TRUE(child.ok());
    EXPECT_EQ(child->Join()->exitcode(), 0);
  }
  pipe.write_end.Reset();
  EXPECT_EQ(ReadAll(pipe.read_end.get()), "x");
}

// CPython: test_sentinel, and that it fires while a grandchild lives, which
// holds all that the child held.
TEST(ProcessStartTest, Sentinel) {
  Pipe pid;
  Pipe held;
  absl::StatusOr<Process> child = Process::Start([&] {
    absl::StatusOr<Process> grandchild = Process::Start([]() -> int {
      while (true) pause();
    });
    const pid_t number = grandchild->pid();
    return write(pid.write_end.get(), &number, sizeof(number)) > 0 ? 0 : 1;
  });
  ASSERT_TRUE(child.ok());
  held.write_end.Reset();
  pollfd sentinel = {child->poll_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&sentinel, 1, -1), 1);
  EXPECT_EQ(child->Join()->exitcode(), 0);
  // A stream in the same place, as Python's sentinel is, would not have ended.
  pollfd stream = {held.read_end.get(), POLLIN, 0};
  EXPECT_EQ(poll(&stream, 1, 0), 0);
  pid_t grandchild;
  ASSERT_EQ(read(pid.read_end.get(), &grandchild, sizeof(grandchild)),
            static_cast<ssize_t>(sizeof(grandchild)));
  EXPECT_EQ(kill(grandchild, SIGKILL), 0);
  EXPECT_EQ(ReadAll(held.read_end.get()), "");
}

// CPython: test_active_children
TEST(ProcessStartTest, ActiveChildren) {
  EXPECT_THAT(ListChildren(), ::testing::IsEmpty());
  Pipe hold;
  absl::StatusOr<Process> child = Process::Start([&] {
    hold.write_end.Reset();
    return ReadAll(hold.read_end.get()).empty() ? 0 : 1;
  });
  ASSERT_TRUE(child.ok());
  EXPECT_THAT(ListChildren(), ::testing::ElementsAre(child->pid()));
  EXPECT_TRUE(child->IsAlive());
  hold.write_end.Reset();
  EXPECT_EQ(child->Join()->exitcode(), 0);
  EXPECT_THAT(ListChildren(), ::testing::IsEmpty());
}

// CPython: test_lose_target_ref. What the function holds is let go with it.
TEST(ProcessStartTest, LoseTargetRef) {
  auto held = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = held;
  absl::StatusOr<Process> child =
      Process::Start([held = std::move(held)] { return *held; });
  ASSERT_TRUE(child.ok());
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(child->Join()->exitcode(), 7);
}

// CPython: test_child_fd_inflation. A child of a child has no more descriptors
// than one.
TEST(ProcessStartTest, ChildFdInflation) {
  const auto count = [] {
    int open = 0;
    for (int fd = 0; fd < 200; ++fd) open += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    return open;
  };
  const int before = count();
  absl::StatusOr<Process> child = Process::Start([&] {
    if (count() != before) return 255;
    absl::StatusOr<Process> grandchild = Process::Start(count);
    return grandchild.ok() ? grandchild->Join()->exitcode() : 254;
  });
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(child->Join()->exitcode(), before);
}

// CPython: test_wait_integer. A sentinel among what can be received from, each
// ready in its turn.
TEST(ProcessStartTest, WaitInteger) {
  Pipe hold, other;
  absl::StatusOr<Process> child = Process::Start([&] {
    hold.write_end.Reset();
    return ReadAll(hold.read_end.get()).empty() ? 0 : 1;
  });
  ASSERT_TRUE(child.ok());
  const WaitableFd reader(other.read_end.get());
  const std::vector<const Waitable*> both = {&*child, &reader};
  EXPECT_THAT(*WaitAny(both, absl::ZeroDuration()), ::testing::IsEmpty());
  hold.write_end.Reset();
  EXPECT_THAT(*WaitAny(both), ::testing::ElementsAre(0));
  ASSERT_EQ(write(other.write_end.get(), "x", 1), 1);
  EXPECT_THAT(*WaitAny(both), ::testing::ElementsAre(0, 1));
  EXPECT_EQ(child->Join()->exitcode(), 0);
  EXPECT_THAT(*WaitAny(both), ::testing::ElementsAre(0, 1)) << "still told";
}

// Writes its path, starts two, and waits for each.
int Recurse(int fd, const std::string& path) {
  if (write(fd, (path + "\n").data(), path.size() + 1) < 0) return 1;
  if (path.size() >= 3) return 0;
  for (const char* step : {"0", "1"}) {
    absl::StatusOr<Process> child =
        Process::Start([&] { return Recurse(fd, path + step); });
    if (!child.ok() || child->Join()->exitcode() != 0) return 1;
  }
  return 0;
}

// CPython: test_recursion
TEST(ProcessStartTest, Recursion) {
  Pipe pipe;
  absl::StatusOr<Process> child =
      Process::Start([&] { return Recurse(pipe.write_end.get(), "-"); });
  pipe.write_end.Reset();
  EXPECT_EQ(ReadAll(pipe.read_end.get()), "-\n-0\n-00\n-01\n-1\n-10\n-11\n");
  EXPECT_EQ(child->Join()->exitcode(), 0);
}

// CPython: test_error_on_stdio_flush_1. Of output that cannot be flushed, as
// the parent has no standard output, nothing is said, in parent or child.
TEST(ProcessStartTest, ErrorOnStdioFlush1) {
  absl::StatusOr<Process> outer = Process::Start([] {
    close(STDOUT_FILENO);
    printf("lost");
    std::cout << "lost";
    absl::StatusOr<Process> inner = Process::Start([] { return 5; });
    return inner.ok() ? inner->Join()->exitcode() : 1;
  });
  EXPECT_EQ(outer->Join()->exitcode(), 5);
}

// CPython: test_error_on_stdio_flush_2. It is the child that has none.
TEST(ProcessStartTest, ErrorOnStdioFlush2) {
  absl::StatusOr<Process> child = Process::Start([] {
    close(STDOUT_FILENO);
    printf("lost");
    std::cout << "lost";
    return 5;
  });
  EXPECT_EQ(child->Join()->exitcode(), 5);
}

// CPython: test_daemon_argument and what becomes of daemons: they end with
// their parent, which does not wait for them.
TEST(ProcessStartTest, DaemonArgument) {
  Pipe alive;
  absl::StatusOr<Process> parent = Process::Start([] {
    return Process::Start(
               []() -> int {
                 while (true) pause();
               },
               {.death_signal = SIGTERM})
                   .ok()
               ? 3
               : 1;
  });
  ASSERT_TRUE(parent.ok());
  alive.write_end.Reset();
  EXPECT_EQ(parent->Join()->exitcode(), 3);
  EXPECT_EQ(ReadAll(alive.read_end.get()), "");
}

TEST(ProcessStartTest, HoldsExactlyTheFdsItIsToKeep) {
  Pipe kept;
  Pipe other;
  const std::vector<int> keep = {kept.write_end.get(), kept.write_end.get(), 0,
                                 -1, 1 << 20};
  absl::StatusOr<Process> child = Process::Start(
      [&] {
        int open = 0;
        for (int fd = 3; fd < 1024; ++fd) open += fcntl(fd, F_GETFD) >= 0;
        const bool is_kept = fcntl(kept.write_end.get(), F_GETFD) >= 0;
        return open == 1 && is_kept ? 0 : open;
      },
      {.keep_fds = keep});
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(child->Join()->exitcode(), 0);
  absl::StatusOr<Process> none = Process::Start(
      [&] {
        // It has no end of its own of the pipe it is the reader of, nor has
        // anybody else, so the stream ends.
        return fcntl(other.write_end.get(), F_GETFD) >= 0 ? 1 : 0;
      },
      {.keep_fds = std::vector<int>()});
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->Join()->exitcode(), 0);
}

TEST(ProcessStartTest, DeathSignalFollowsTheParent) {
  Pipe alive;
  Pipe ready;
  absl::StatusOr<Process> parent = Process::Start([&]() -> int {
    absl::StatusOr<Process> child = Process::Start(
        [&]() -> int {
          (void)!write(ready.write_end.get(), "", 1);
          while (true) pause();
        },
        {.death_signal = SIGKILL});
    while (true) pause();
  });
  ASSERT_TRUE(parent.ok());
  alive.write_end.Reset();
  char byte;
  ASSERT_EQ(read(ready.read_end.get(), &byte, 1), 1);
  ASSERT_TRUE(parent->Kill().ok());
  EXPECT_EQ(parent->Join()->exitcode(), -SIGKILL);
  // End of file, because the only writer, the child's child, is gone.
  EXPECT_EQ(ReadAll(alive.read_end.get()), "");
}

}  // namespace
}  // namespace ipc::process
