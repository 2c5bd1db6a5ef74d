// ProcessPool, with the behaviours of CPython's _TestPool and its like under
// their names, but for these:
//
//   test_starmap, test_starmap_async, test_map_unplicklable,
//   test_unpickleable_result
//                           input and result are bytes, of which only the
//                           length can be wrong: process_pool_test.cc,
//                           SizesHaveLimits
//   test_map_async, test_map_async_callbacks, test_async_error_callback
//                           there is no hidden thread to call anybody back:
//                           Submit is what is asynchronous, see Async
//   test_imap_handle_iterable_exception,
//   test_imap_unordered_handle_iterable_exception,
//   test_map_handle_iterable_exception
//                           inputs are there before they are submitted
//   test_traceback          of an error its status comes over, see
//                           WrappedException
//   test_release_task_refs  a task's input is a copy that goes with the result
//   test_pool_initializer   the function captures what is made ready once
//   test_pool_maxtasksperchild_invalid
//                           workers are not replaced for their age
//   test_pool_worker_lifetime_early_close
//                           for the same reason it is Close alone, see Close
//   test_worker_finalization_via_atexit_handler_of_multiprocessing,
//   test_resource_warning   workers run no exit handlers; what becomes of a
//   pool
//                           that nobody joins is said in process_pool.h
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/process/children.h"
#include "ipc/process/process_pool.h"

namespace ipc::process {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// The square of a number; what cannot be one throws, and "stay" stays.
absl::StatusOr<std::string> Square(absl::string_view input) {
  if (input == "stay") {
    while (true) pause();
  }
  int number = 0;
  if (!absl::SimpleAtoi(input, &number)) throw std::runtime_error("no number");
  return absl::StrCat(number * number);
}

std::vector<std::string> Numbers(int count) {
  std::vector<std::string> numbers;
  for (int i = 0; i < count; ++i) numbers.push_back(absl::StrCat(i));
  return numbers;
}

class PythonPoolTest : public ::testing::Test {
 protected:
  ~PythonPoolTest() override {
    EXPECT_THAT(ListChildren(), IsEmpty()) << "zombies, or living ones";
  }

  static ProcessPool Create(const ProcessPoolOptions& options = {}) {
    absl::StatusOr<ProcessPool> pool = ProcessPool::Create(Square, options);
    EXPECT_TRUE(pool.ok()) << pool.status();
    return *std::move(pool);
  }
};

// CPython: test_apply
TEST_F(PythonPoolTest, Apply) {
  ProcessPool pool = Create();
  EXPECT_EQ(*pool.Submit("5")->Get(), "25");
  EXPECT_TRUE(pool.Join().ok());
}

// CPython: test_map
TEST_F(PythonPoolTest, Map) {
  ProcessPool pool = Create({.workers = 4});
  for (const int count : {10, 100}) {
    const auto squares = pool.Map(Numbers(count));
    ASSERT_TRUE(squares.ok()) << squares.status();
    ASSERT_THAT(*squares, SizeIs(count));
    for (int i = 0; i < count; ++i) {
      EXPECT_EQ(*(*squares)[i], absl::StrCat(i * i));
    }
  }
  EXPECT_TRUE(pool.Join().ok());
}

// CPython: test_map_chunksize, that a map of nothing ends; there are no chunks.
// CPython: test_empty_iterable
TEST_F(PythonPoolTest, MapChunksize) {
  ProcessPool pool = Create();
  EXPECT_THAT(*pool.Map({}), IsEmpty());
  EXPECT_THAT(*pool.Map({}, absl::ZeroDuration()), IsEmpty());
  EXPECT_TRUE(pool.Join().ok());
}

// CPython: test_map_no_failfast. One that fails takes none with it.
TEST_F(PythonPoolTest, MapNoFailfast) {
  ProcessPool pool = Create();
  std::vector<std::string> inputs = Numbers(50);
  inputs.front() = "x";
  const auto squares = pool.Map(inputs);
  ASSERT_TRUE(squares.ok()) << squares.status();
  EXPECT_FALSE(squares->front().ok());
  for (int i = 1; i < 50; ++i) EXPECT_EQ(*(*squares)[i], absl::StrCat(i * i));
  EXPECT_TRUE(pool.Join().ok());
}

// CPython: test_async
TEST_F(PythonPoolTest, Async) {
  ProcessPool pool = Create();
  PoolTask seven = *pool.Submit("7");
  PoolTask eight = *pool.Submit("8");
  EXPECT_EQ(*eight.Get(), "64");
  EXPECT_EQ(*seven.Get(), "49");
  EXPECT_TRUE(seven.done());
  EXPECT_TRUE(pool.Join().ok());
}

// CPython: test_async_timeout
TEST_F(PythonPoolTest, AsyncTimeout) {
  ProcessPool pool = Create();
  PoolTask task = *pool.Submit("stay");
  const absl::Time begin = absl::Now();
  EXPECT_EQ(task.Get(absl::Milliseconds(50)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(50));
  EXPECT_FALSE(task.done());
  pool.Terminate();
}

// CPython: test_imap. Results one by one, in order.
TEST_F(PythonPoolTest, Imap) {
  ProcessPool pool = Create();
  std::vector<PoolTask> tasks;
  for (const std::string& number : Numbers(1000)) {
    tasks.push_back(*pool.Submit(number));
  }
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(*tasks[i].Get(), absl::StrCat(i * i));
  }
  EXPECT_TRUE(pool.Join().ok());
}

// CPython: test_imap_unordered. Who has not ended holds no result up.
TEST_F(PythonPoolTest, ImapUnordered) {
  ProcessPool pool = Create({.workers = 2});
  PoolTask first = *pool.Submit("stay");
  std::vector<PoolTask> tasks;
  for (const std::string& number : Numbers(100)) {
    tasks.push_back(*pool.Submit(number));
  }
  for (int i = 99; i >= 0; --i) {
    EXPECT_EQ(*tasks[i].Get(), absl::StrCat(i * i));
  }
  EXPECT_FALSE(first.done());
  pool.Terminate();
}

// CPython: test_make_pool
TEST_F(PythonPoolTest, MakePool) {
  for (const int workers : {0, -1}) {
    EXPECT_EQ(ProcessPool::Create(Square, {.workers = workers}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  ProcessPool pool = Create({.workers = 3});
  EXPECT_THAT(pool.worker_pids(), SizeIs(3));
  EXPECT_TRUE(pool.Join().ok());
}

// CPython: test_close of the pool's state: nothing is taken any more, and what
// was taken is done.
TEST_F(PythonPoolTest, Close) {
  ProcessPool pool = Create();
  PoolTask task = *pool.Submit("3");
  pool.Close();
  EXPECT_EQ(pool.Submit("4").status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(pool.Join().ok());
  EXPECT_EQ(*task.Get(), "9");
}

// CPython: test_terminate. Nobody waits for what has not been done.
TEST_F(PythonPoolTest, Terminate) {
  ProcessPool pool = Create();
  std::vector<PoolTask> tasks;
  for (int i = 0; i < 10'000; ++i) tasks.push_back(*pool.Submit("stay"));
  pool.Terminate();
  for (PoolTask& task : tasks) {
    ASSERT_EQ(task.Get().status().code(), absl::StatusCode::kCancelled);
  }
}

// CPython: test_context and test_enter. The end of a scope is that of its pool.
TEST_F(PythonPoolTest, Context) {
  pid_t worker = 0;
  PoolTask task = [&] {
    ProcessPool pool = Create({.workers = 1});
    EXPECT_EQ(*pool.Submit("6")->Get(), "36");
    worker = pool.worker_pids().front();
    return *pool.Submit("stay");
  }();
  EXPECT_EQ(task.Get().status().code(), absl::StatusCode::kCancelled);
  // The server ends once its worker has, and is ours to reap.
  const pid_t server = ListChildren().at(0);
  EXPECT_EQ(waitpid(server, nullptr, 0), server);
  EXPECT_NE(kill(worker, 0), 0);
}

// CPython: test_wrapped_exception
TEST_F(PythonPoolTest, WrappedException) {
  ProcessPool pool = Create();
  const absl::Status status = pool.Submit("x")->Get().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(status.message(), HasSubstr("no number"));
  EXPECT_TRUE(pool.Join().ok());
}

// CPython: test_pool_worker_lifetime. It is that of the pool.
TEST_F(PythonPoolTest, PoolWorkerLifetime) {
  ProcessPool pool = Create({.workers = 3});
  const std::vector<pid_t> before = pool.worker_pids();
  ASSERT_TRUE(pool.Map(Numbers(500)).ok());
  EXPECT_EQ(pool.worker_pids(), before);
  EXPECT_EQ(pool.stats().deaths, 0U);
  EXPECT_TRUE(pool.Join().ok());
}

// CPython: test_release_unused_processes. Of a pool that cannot be made nothing
// is left.
TEST_F(PythonPoolTest, ReleaseUnusedProcesses) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  int failures = 0;
  for (rlim_t limit = 4; limit < 64; ++limit) {
    const rlimit lower = {limit, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &lower), 0);
    absl::StatusOr<ProcessPool> pool = ProcessPool::Create(Square);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    if (pool.ok()) {
      pool->Terminate();
      break;
    }
    ++failures;
    ASSERT_THAT(ListChildren(), IsEmpty());
  }
  EXPECT_GT(failures, 0);
}

}  // namespace
}  // namespace ipc::process
