// A ProcessPool under what breaks other pools.
#include "ipc/process/process_pool.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <deque>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/children.h"
#include "ipc/process/process.h"
#include "tests/testing/process_state.h"

namespace ipc::process {
namespace {

using testing::ProcessState;

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

void DieOf(int signal) {
  const rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  // Sanitizers have handlers of their own.
  ::signal(signal, SIG_DFL);
  raise(signal);
}

// Whether this is the first call for `path`.
bool IsFirst(const std::string& path) {
  const int fd = open(path.c_str(), O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd >= 0) close(fd);
  return fd >= 0;
}

// Says through the FIFO or pipe `path` that it runs, and stays.
void Announce(const std::string& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const pid_t pid = getpid();
  if (write(fd, &pid, sizeof(pid)) != sizeof(pid)) abort();
  close(fd);
}

// The tasks: a word and what it is about.
absl::StatusOr<std::string> Do(absl::string_view input) {
  const std::pair<std::string, std::string> words =
      absl::StrSplit(input, absl::MaxSplits(' ', 1));
  const std::string& what = words.first;
  const std::string& about = words.second;
  if (what == "echo") return about;
  if (what == "fail") return absl::NotFoundError(about);
  if (what == "throw") throw std::runtime_error(about);
  if (what == "long") return std::string(atoi(about.c_str()), 'x');
  if (what == "crash") DieOf(SIGSEGV);
  if (what == "exit") _exit(9);
  if (what == "once") {
    if (IsFirst(about)) DieOf(SIGKILL);
    return "survived";
  }
  if (what == "hang-once") {
    if (!IsFirst(about + ".first")) return "survived";
    Announce(about);
    while (true) pause();
  }
  if (what == "hang") {
    Announce(about);
    while (true) pause();
  }
  if (what == "fds") {
    std::string open_fds;
    for (int fd = 0; fd < 256; ++fd) {
      char target[256] = {};
      const std::string link = absl::StrCat("/proc/self/fd/", fd);
      if (readlink(link.c_str(), target, sizeof(target) - 1) < 0) continue;
      absl::StrAppend(&open_fds, fd < 3 ? "standard" : target, "\n");
    }
    return open_fds;
  }
  return absl::InvalidArgumentError(what);
}

class ProcessPoolTest : public ::testing::Test {
 protected:
  ProcessPoolTest() {
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    EXPECT_EQ(mkfifo(fifo().c_str(), 0600), 0);
    // Its both ends, so that nobody waits for the other one to be opened.
    fifo_fd_ = open(fifo().c_str(), O_RDWR | O_CLOEXEC);
    EXPECT_GE(fifo_fd_, 0);
    fds_ = CountFds();
  }
  ~ProcessPoolTest() override {
    EXPECT_EQ(CountFds(), fds_);
    EXPECT_THAT(ListChildren(), IsEmpty()) << "zombies, or living ones";
    close(fifo_fd_);
    (void)!system(absl::StrCat("rm -r ", directory_).c_str());
  }

  static int CountFds() {
    int open = 0;
    for (int fd = 0; fd < 1024; ++fd) open += fcntl(fd, F_GETFD) >= 0;
    return open;
  }

  static ProcessPool Create(const ProcessPoolOptions& options = {}) {
    absl::StatusOr<ProcessPool> pool = ProcessPool::Create(Do, options);
    EXPECT_TRUE(pool.ok()) << pool.status();
    return *std::move(pool);
  }

  std::string fifo() const { return directory_ + "/fifo"; }
  std::string Path(absl::string_view name) const {
    return absl::StrCat(directory_, "/", name);
  }
  // The worker in which a hanging task has begun.
  pid_t WaitForAnnounced() const {
    pid_t pid = 0;
    EXPECT_EQ(read(fifo_fd_, &pid, sizeof(pid)),
              static_cast<ssize_t>(sizeof(pid)));
    return pid;
  }
  // Whether there is one within that time.
  bool IsAnnounced(absl::Duration timeout) const {
    pollfd announced = {fifo_fd_, POLLIN, 0};
    return poll(&announced, 1,
                static_cast<int>(absl::ToInt64Milliseconds(timeout))) == 1;
  }

 private:
  std::string directory_ = ::testing::TempDir() + "/pool_XXXXXX";
  int fifo_fd_ = -1;
  int fds_ = 0;
};

TEST_F(ProcessPoolTest, ResultsErrorsAndExceptions) {
  ProcessPool pool = Create();
  PoolTask echo = *pool.Submit("echo hello");
  PoolTask fail = *pool.Submit("fail no such thing");
  PoolTask thrown = *pool.Submit("throw a tantrum");
  PoolTask empty = *pool.Submit("echo ");
  EXPECT_EQ(*echo.Get(), "hello");
  EXPECT_EQ(*echo.Get(), "hello") << "again";
  EXPECT_TRUE(echo.done());
  EXPECT_EQ(fail.Get().status(), absl::NotFoundError("no such thing"));
  EXPECT_EQ(thrown.Get().status(),
            absl::UnknownError("the task threw: a tantrum"));
  EXPECT_EQ(*empty.Get(), "");
  EXPECT_EQ(pool.stats().deaths, 0U);
  EXPECT_TRUE(pool.Join().ok());
  EXPECT_EQ(*echo.Get(), "hello") << "results outlive the pool's work";
  EXPECT_EQ(pool.Submit("echo").status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(pool.Join().ok());
}

TEST_F(ProcessPoolTest, MapKeepsTheOrderOfThousands) {
  // More tasks than slots, by far.
  ProcessPool pool = Create({.workers = 3, .queue_slots = 8});
  std::vector<std::string> inputs;
  for (int i = 0; i < 5000; ++i) inputs.push_back(absl::StrCat("echo ", i));
  const auto results = pool.Map(inputs);
  ASSERT_TRUE(results.ok()) << results.status();
  ASSERT_THAT(*results, SizeIs(5000));
  for (int i = 0; i < 5000; ++i) ASSERT_EQ(*(*results)[i], absl::StrCat(i));
  EXPECT_EQ(pool.stats().finished, 5000U);
  EXPECT_TRUE(pool.Join().ok());
}

TEST_F(ProcessPoolTest, SizesHaveLimits) {
  ProcessPool pool =
      Create({.workers = 1, .max_input_bytes = 100, .max_result_bytes = 2000});
  EXPECT_EQ(pool.Submit(std::string(101, 'x')).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pool.Submit("long 2000")->Get()->size(), 2000U);
  const absl::Status status = pool.Submit("long 2001")->Get().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("max_result_bytes"));
  EXPECT_TRUE(pool.Join().ok());
  EXPECT_EQ(ProcessPool::Create(Do, {.workers = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ProcessPool::Create(Do, {.max_attempts = 256}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(ProcessPoolTest, ATaskSurvivesItsWorker) {
  ProcessPool pool = Create({.workers = 2});
  EXPECT_EQ(*pool.Submit("once " + Path("a"))->Get(), "survived");
  EXPECT_EQ(pool.stats().deaths, 1U);
  EXPECT_TRUE(pool.Join().ok());
}

TEST_F(ProcessPoolTest, KilledInTheMiddleOfATask) {
  for (const int workers : {1, 3}) {
    ProcessPool pool = Create({.workers = workers});
    const std::vector<pid_t> before = pool.worker_pids();
    PoolTask task = *pool.Submit("hang-once " + fifo());
    const pid_t victim = WaitForAnnounced();
    EXPECT_THAT(before, Contains(victim));
    ASSERT_EQ(kill(victim, SIGKILL), 0);
    EXPECT_EQ(*task.Get(), "survived");
    EXPECT_EQ(*pool.Submit("echo on")->Get(), "on");
    EXPECT_EQ(pool.stats().deaths, 1U);
    // Its replacement may take its time, and nobody waits for it.
    while (pool.worker_pids().size() < static_cast<size_t>(workers)) {
      EXPECT_EQ(*pool.Submit("echo on")->Get(), "on");
    }
    EXPECT_THAT(pool.worker_pids(), SizeIs(workers));
    EXPECT_THAT(pool.worker_pids(), Not(Contains(victim)));
    EXPECT_TRUE(pool.Join().ok());
    unlink((fifo() + ".first").c_str());
  }
}

TEST_F(ProcessPoolTest, ATaskThatAlwaysCrashesIsGivenUp) {
  ProcessPool pool = Create({.workers = 2, .max_attempts = 3});
  std::vector<std::string> inputs;
  for (int i = 0; i < 50; ++i) {
    inputs.push_back(i == 20   ? "crash"
                     : i == 30 ? "exit"
                               : absl::StrCat("echo ", i));
  }
  const auto results = pool.Map(inputs);
  ASSERT_TRUE(results.ok()) << results.status();
  for (int i = 0; i < 50; ++i) {
    if (i != 20 && i != 30) {
      EXPECT_EQ(*(*results)[i], absl::StrCat(i));
    }
  }
  const absl::Status crash = (*results)[20].status();
  EXPECT_EQ(crash.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(crash.message()),
              ::testing::ContainsRegex(
                  "begun 3 times, and each time its worker died: worker [0-9]+ "
                  "was killed by SIGSEGV, worker [0-9]+ was killed by SIGSEGV, "
                  "worker [0-9]+ was killed by SIGSEGV"));
  EXPECT_THAT((*results)[30].status().message(), HasSubstr("exited with 9"));
  EXPECT_EQ(pool.stats().deaths, 6U);
  EXPECT_TRUE(pool.Join().ok());
}

TEST_F(ProcessPoolTest, OneAttempt) {
  ProcessPool pool = Create({.workers = 1, .max_attempts = 1});
  const absl::Status status = pool.Submit("once " + Path("a"))->Get().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(status.message(), HasSubstr("begun 1 time,"));
  EXPECT_EQ(*pool.Submit("echo on")->Get(), "on");
  EXPECT_TRUE(pool.Join().ok());
}

// Workers die at any moment, and every task has its result in the end.
TEST_F(ProcessPoolTest, WorkersAreKilledAllTheTime) {
  constexpr int kTasks = 1000;
  constexpr int kAhead = 16;  // so that there always is something to do
  ProcessPool pool = Create({.workers = 3, .max_attempts = 200});
  std::vector<PoolTask> tasks;
  uint64_t kills = 0;
  for (int i = 0; i < kTasks + kAhead; ++i) {
    if (i < kTasks) tasks.push_back(*pool.Submit(absl::StrCat("echo ", i)));
    if (i % 10 == 0) {
      // None, if all were just killed.
      if (const std::vector<pid_t> pids = pool.worker_pids(); !pids.empty()) {
        kills += kill(pids[i / 10 % pids.size()], SIGKILL) == 0;
      }
    }
    if (i < kAhead) continue;
    const absl::StatusOr<std::string> result = tasks[i - kAhead].Get();
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(*result, absl::StrCat(i - kAhead));
  }
  EXPECT_GT(kills, 0U);
  EXPECT_TRUE(pool.Join().ok());
  EXPECT_EQ(pool.stats().finished, uint64_t{kTasks});
}

// As are their servers: whatever is killed, the tasks are done.
TEST_F(ProcessPoolTest, WorkersAndServersAreKilledAllTheTime) {
  ProcessPool pool = Create({.workers = 3, .max_attempts = 200});
  std::minstd_rand random(20261124);
  uint64_t servers = 0;
  std::deque<PoolTask> tasks;
  const absl::Time end = absl::Now() + absl::Seconds(3);
  for (int sent = 0, received = 0; absl::Now() < end || !tasks.empty();) {
    if (absl::Now() < end) {
      for (; tasks.size() < 16; ++sent) {
        tasks.push_back(*pool.Submit(absl::StrCat("echo ", sent)));
      }
    }
    if (random() % 8 == 0) {
      for (const pid_t pid : pool.worker_pids()) {
        if (random() % 2 == 0) kill(pid, SIGKILL);
      }
    }
    if (random() % 64 == 0) {
      for (const pid_t pid : ListChildren()) {
        servers += kill(pid, SIGKILL) == 0;
      }
    }
    const absl::StatusOr<std::string> result =
        tasks.front().Get(absl::Seconds(30));
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(*result, absl::StrCat(received++));
    tasks.pop_front();
  }
  EXPECT_GT(servers, 0U);
  EXPECT_TRUE(pool.Join(absl::Seconds(30)).ok());
}

TEST_F(ProcessPoolTest, TaskTimeout) {
  ProcessPool pool =
      Create({.workers = 1, .task_timeout = absl::Milliseconds(100)});
  const absl::Time begin = absl::Now();
  PoolTask task = *pool.Submit("hang " + fifo());
  PoolTask next = *pool.Submit("echo next");
  const pid_t victim = WaitForAnnounced();
  const absl::Status status = task.Get().status();
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(100));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("100ms"), HasSubstr(absl::StrCat(victim))));
  EXPECT_TRUE(task.done());
  EXPECT_EQ(*next.Get(), "next");
  EXPECT_TRUE(pool.Join().ok());
}

// Nobody waits for the tasks any more, yet their workers are wanted.
TEST_F(ProcessPoolTest, TaskTimeoutOfWhatWasCancelled) {
  ProcessPool pool =
      Create({.workers = 2, .task_timeout = absl::Milliseconds(200)});
  for (int i = 0; i < 2; ++i) {
    PoolTask hanging = *pool.Submit("hang " + fifo());
    WaitForAnnounced();
    hanging.Cancel();
  }
  EXPECT_EQ(*pool.Submit("echo on")->Get(absl::Seconds(10)), "on");
  EXPECT_GE(pool.stats().deaths, 1U);
  PoolTask last = *pool.Submit("hang " + fifo());
  WaitForAnnounced();
  last.Cancel();
  EXPECT_EQ(pool.Join(absl::Seconds(10)), absl::OkStatus());
}

// One worker is wanted, so one is started, in whatever state this process is.
TEST_F(ProcessPoolTest, NoMoreWorkersThanWantedAtTheLimitOfDescriptors) {
  ProcessPool pool = Create({.workers = 2});
  const pid_t server = ListChildren().at(0);
  std::vector<UniqueFd> taken;
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit lower = {200, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &lower), 0);
  while (taken.empty() || taken.back().ok()) {
    taken.emplace_back(fcntl(0, F_DUPFD_CLOEXEC, 0));
  }
  // Its two descriptors here are the only ones free.
  ASSERT_EQ(kill(pool.worker_pids()[0], SIGKILL), 0);
  // The other one does everything, while a replacement is tried at each tick.
  const absl::Time end = absl::Now() + 10 * ProcessPool::kTick;
  while (absl::Now() < end) {
    ASSERT_EQ(*pool.Submit("echo on")->Get(absl::Seconds(10)), "on");
  }
  std::ifstream list(
      absl::StrCat("/proc/", server, "/task/", server, "/children"));
  ASSERT_TRUE(list.is_open());
  std::vector<pid_t> workers;
  for (pid_t pid; list >> pid;) workers.push_back(pid);
  EXPECT_EQ(workers, pool.worker_pids());
  EXPECT_THAT(workers, SizeIs(1));
  list.close();
  taken.clear();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(*pool.Submit("echo on")->Get(), "on");
  EXPECT_TRUE(pool.Join(absl::Seconds(10)).ok());
}

TEST_F(ProcessPoolTest, GetTimeoutCancelAndTerminate) {
  ProcessPool pool = Create({.workers = 1});
  PoolTask running = *pool.Submit("hang " + fifo());
  PoolTask waiting = *pool.Submit("once " + Path("never"));
  PoolTask other = *pool.Submit("echo x");
  WaitForAnnounced();
  EXPECT_EQ(running.Get(absl::Milliseconds(30)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(running.done());
  waiting.Cancel();
  EXPECT_EQ(waiting.Get().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(pool.Join(absl::Milliseconds(30)).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(pool.Map({"echo 1"}).status().code(),
            absl::StatusCode::kFailedPrecondition)
      << "Join has closed it";
  pool.Terminate();
  EXPECT_EQ(running.Get().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(other.Get().status().code(), absl::StatusCode::kCancelled);
  EXPECT_NE(access(Path("never").c_str(), F_OK), 0) << "it has begun";
}

TEST_F(ProcessPoolTest, MapTimeoutCancelsTheRest) {
  ProcessPool pool = Create({.workers = 1});
  const absl::Status status =
      pool.Map({"echo 1", "hang " + fifo(), "echo 3"}, absl::Milliseconds(100))
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  kill(WaitForAnnounced(), SIGKILL);
  EXPECT_EQ(*pool.Submit("echo on")->Get(), "on");
  EXPECT_TRUE(pool.Join().ok());
}

TEST_F(ProcessPoolTest, IdleWorkersAreReplaced) {
  ProcessPool pool = Create({.workers = 3});
  for (const pid_t pid : pool.worker_pids()) ASSERT_EQ(kill(pid, SIGKILL), 0);
  EXPECT_EQ(*pool.Submit("echo on")->Get(), "on");
  EXPECT_TRUE(pool.Join().ok());
}

TEST_F(ProcessPoolTest, TheForkServerIsKilled) {
  ProcessPool pool = Create({.workers = 2});
  PoolTask task = *pool.Submit("hang-once " + fifo());
  WaitForAnnounced();
  const std::vector<pid_t> children = ListChildren();
  ASSERT_THAT(children, SizeIs(1));
  ASSERT_EQ(kill(children[0], SIGKILL), 0);
  EXPECT_EQ(*task.Get(), "survived");
  EXPECT_TRUE(pool.Join().ok());
}

// Returns when `pid` has been killed; a stopped server has not reaped it.
void KillForGood(pid_t pid) {
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  pollfd ended = {pidfd.get(), POLLIN, 0};
  ASSERT_EQ(poll(&ended, 1, -1), 1);
}

// Returns when it has stopped.
void Stop(pid_t pid) {
  ASSERT_EQ(kill(pid, SIGSTOP), 0);
  while (ProcessState(pid) != 'T') sched_yield();
}

pid_t StopServer() {
  const pid_t server = ListChildren().at(0);
  Stop(server);
  return server;
}

// Nobody can start a worker, or tell how the last one ended. That is no reason
// to wait for longer than asked, nor to give the task up.
TEST_F(ProcessPoolTest, TheForkServerIsStopped) {
  ProcessPool pool = Create({.workers = 2});
  const pid_t server = StopServer();
  const std::vector<pid_t> workers = pool.worker_pids();
  KillForGood(workers[0]);
  // The other one goes on.
  EXPECT_EQ(*pool.Submit("echo on")->Get(), "on");
  KillForGood(workers[1]);
  PoolTask task = *pool.Submit("echo later");
  EXPECT_FALSE(task.done());
  for (const int ms : {0, 1, 50}) {
    EXPECT_EQ(task.Get(absl::Milliseconds(ms)).status().code(),
              absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_EQ(pool.Map({"echo x"}, absl::Milliseconds(50)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(pool.Join(absl::Milliseconds(50)).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(task.done());
  EXPECT_EQ(ProcessState(server), 'T');
  ASSERT_EQ(kill(server, SIGCONT), 0);
  EXPECT_EQ(*task.Get(), "later");
  EXPECT_EQ(pool.stats().deaths, 2U);
  EXPECT_TRUE(pool.Join().ok());
}

// A worker that was asked for, and comes when nothing is left to do.
TEST_F(ProcessPoolTest, TheForkServerIsStoppedUntilTheEnd) {
  ProcessPool pool = Create({.workers = 1});
  const pid_t server = StopServer();
  KillForGood(pool.worker_pids()[0]);
  PoolTask task = *pool.Submit("echo never");
  EXPECT_EQ(task.Get(absl::Milliseconds(50)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  task.Cancel();
  EXPECT_EQ(pool.Join(absl::Milliseconds(50)).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ProcessState(server), 'T');
  ASSERT_EQ(kill(server, SIGCONT), 0);
  EXPECT_TRUE(pool.Join().ok());
}

// A worker that was asked for, and has got a task before the pool knows it, for
// which the others stay until the end.
TEST_F(ProcessPoolTest, AReplacementHasTheLastTask) {
  ProcessPool pool =
      Create({.workers = 2, .task_timeout = absl::Milliseconds(100)});
  const std::vector<pid_t> workers = pool.worker_pids();
  KillForGood(workers[0]);
  Stop(workers[1]);
  PoolTask task = *pool.Submit("hang " + fifo());
  // Often enough that the server is asked, and seldom enough that nobody sees
  // its answer before the worker's.
  do {
    EXPECT_EQ(task.Get(absl::ZeroDuration()).status().code(),
              absl::StatusCode::kDeadlineExceeded);
  } while (!IsAnnounced(absl::Milliseconds(200)));
  EXPECT_THAT(workers, Not(Contains(WaitForAnnounced())));
  ASSERT_EQ(kill(workers[1], SIGCONT), 0);
  task.Cancel();
  EXPECT_EQ(pool.Join(absl::Seconds(10)), absl::OkStatus());
}

TEST_F(ProcessPoolTest, AStoppedForkServerIsTerminated) {
  ProcessPool pool = Create({.workers = 2});
  PoolTask task = *pool.Submit("hang " + fifo());
  WaitForAnnounced();
  StopServer();
  KillForGood(pool.worker_pids()[0]);
  pool.Terminate();
  EXPECT_EQ(task.Get().status().code(), absl::StatusCode::kCancelled);
}

TEST_F(ProcessPoolTest, WorkersEndWithTheirClient) {
  absl::StatusOr<Process> client = Process::Start([&]() -> int {
    ProcessPool pool = Create({.workers = 2});
    PoolTask task = *pool.Submit("hang " + fifo());
    while (true) pause();
  });
  ASSERT_TRUE(client.ok());
  const UniqueFd worker(
      static_cast<int>(syscall(SYS_pidfd_open, WaitForAnnounced(), 0)));
  ASSERT_TRUE(worker.ok());
  ASSERT_TRUE(client->Kill().ok());
  EXPECT_EQ(client->Join()->exitcode(), -SIGKILL);
  pollfd ended = {worker.get(), POLLIN, 0};
  EXPECT_EQ(poll(&ended, 1, -1), 1);
}

TEST_F(ProcessPoolTest, WorkersHoldWhatIsTheirs) {
  ProcessPool pool = Create({.workers = 1});
  const std::vector<std::string> open =
      absl::StrSplit(*pool.Submit("fds")->Get(), '\n', absl::SkipEmpty());
  // The board, and for each queue the segment and its lock.
  const std::string queue = "/memfd:parley_mqueue (deleted)";
  EXPECT_THAT(open, UnorderedElementsAre("standard", "standard", "standard",
                                         "/memfd:process pool (deleted)", queue,
                                         queue, queue, queue));
  EXPECT_TRUE(pool.Join().ok());
}

TEST_F(ProcessPoolTest, TheDestructorDoesNotWaitForWhatHangs) {
  pid_t worker = 0;
  {
    ProcessPool pool = Create({.workers = 1});
    PoolTask task = *pool.Submit("hang " + fifo());
    worker = WaitForAnnounced();
  }
  // The server ends once its child has, and is ours to reap.
  EXPECT_GT(waitpid(-1, nullptr, 0), 0);
  EXPECT_NE(kill(worker, 0), 0);
}

}  // namespace
}  // namespace ipc::process
