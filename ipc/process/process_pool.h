// A ProcessPool runs a function in a fixed number of processes, and survives
// what the function does to them: a task whose worker dies is given to another
// one, the worker is replaced, and everything else goes on. (Python's
// concurrent.futures raises BrokenProcessPool for all tasks instead, and
// multiprocessing.Pool waits for ever.)
//
// Example:
//
//   // Early, as the pool forks this process once:
//   absl::StatusOr<ProcessPool> pool = ProcessPool::Create(
//       [](absl::string_view input) -> absl::StatusOr<std::string> {
//         return Thumbnail(input);
//       },
//       {.workers = 4, .task_timeout = absl::Seconds(10)});
//   absl::StatusOr<PoolTask> task = pool->Submit(image);
//   ...
//   absl::StatusOr<std::string> thumbnail = task->Get(absl::Minutes(1));
//   // Or all at once, in order:
//   auto thumbnails = pool->Map(images);
//   for (const absl::StatusOr<std::string>& each : *thumbnails) ...
//   pool->Close();
//   absl::Status status = pool->Join();
//
// Where things happen: there is no hidden thread. Workers take tasks from a
// queue in shared memory (ipc/mqueue, explicit acknowledgement) by themselves,
// but results are received, deaths noticed, workers replaced, time-outs
// enforced and tasks beyond the queue's size handed over within calls of this
// object or of its tasks: in Get, Map and Join while they wait, and there at
// the latest kTick after the event; a bit also in Submit. A caller that stays
// away for long finds workers idle, with their results in a queue. No call but
// Create and Terminate waits for the fork server, which somebody may have
// stopped: tasks then wait for a worker as long as they would for a busy one.
//
// Delivery: a task is run at least once, and again if its worker dies before
// the result is in the queue; at most max_attempts times in all. After that
// many deaths its result is Aborted and names them: "worker 1234 was killed by
// SIGSEGV". So a task should be repeatable, or max_attempts 1.
//
// Processes: Create forks a ForkServer (see ipc/process/fork_server.h), which
// holds a copy of the function with what it captures, and forks the workers,
// now and later: a replacement costs the same however large this process has
// become, and is safe however many threads it has. Workers have 0, 1, 2 of this
// process and what is their own. If this process ends, however, they are
// killed. Only if somebody kills the server, a new one is forked, from this
// process as it then is: if it has threads by then, the function must not need
// a lock that one of them may hold (see Process::Start).
//
// Errors of a task
//   whatever it returned; Unknown if it threw, and the worker goes on
//   Aborted            its workers died, max_attempts times
//   DeadlineExceeded   it ran for longer than task_timeout, and the worker was
//                      killed (no second attempt); or Get's time-out passed,
//                      and the task goes on: then done() is false
//   ResourceExhausted  its result is longer than max_result_bytes
//   Cancelled          by Cancel, Terminate or the end of the pool
//   Unavailable        no worker can be started, or workers end before they
//                      take a task
//
// Thread safety: one thread at a time may use a pool and its tasks.
//
// Fork: for the process that created it; its children must not use it.
//
// Lifetime: Join or Terminate before the end, or else the destructor kills the
// workers without waiting, and their server stays a zombie until this process
// ends.
#ifndef IPC_PROCESS_PROCESS_POOL_H_
#define IPC_PROCESS_PROCESS_POOL_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/process/pool_worker.h"

namespace ipc::process {

struct ProcessPoolOptions {
  int workers = 2;  // at most 200
  // How often a task may be begun; at most 255.
  int max_attempts = 3;
  // How long one attempt may run.
  absl::Duration task_timeout = absl::InfiniteDuration();
  // Tasks that workers find without this process' help. More are kept here.
  uint64_t queue_slots = 128;
  // Of one input, of one result. Each queue allocates about twice its slots
  // times this, at most 64 MiB or four of them.
  size_t max_input_bytes = 16 << 10;
  size_t max_result_bytes = 16 << 10;
};

class PoolCore;

// A handle to a task; copies are handles to the same.
class PoolTask {
 public:
  // Waits for the task and returns its result, again and again. A `timeout` of
  // zero or less looks once.
  absl::StatusOr<std::string> Get(
      absl::Duration timeout = absl::InfiniteDuration());
  // Whether Get returns at once, as far as has been noticed.
  bool done() const;
  // Unless it is done: Cancelled is its result. If it has not begun, it never
  // will; what runs already runs to its end or to task_timeout, for nothing.
  void Cancel();

 private:
  friend class ProcessPool;
  class State;
  friend class PoolCore;
  explicit PoolTask(std::shared_ptr<State> state) : state_(std::move(state)) {}

  std::shared_ptr<State> state_;
};

struct ProcessPoolStats {
  uint64_t finished = 0;  // tasks that have a result of any kind
  uint64_t deaths = 0;    // of workers, while the pool was in use
};

class ProcessPool {
 public:
  // How long anything may go unnoticed by a caller that waits.
  static constexpr absl::Duration kTick = absl::Milliseconds(20);

  // InvalidArgument if an option is out of range, ResourceExhausted if there is
  // no room for processes or memory.
  static absl::StatusOr<ProcessPool> Create(
      PoolFunction function, const ProcessPoolOptions& options = {});

  ProcessPool(ProcessPool&&) noexcept;
  ProcessPool& operator=(ProcessPool&&) noexcept;
  ~ProcessPool();

  // Does not wait. InvalidArgument if `input` exceeds
  // max_input_bytes, FailedPrecondition after Close.
  absl::StatusOr<PoolTask> Submit(absl::string_view input);

  // The results of all `inputs`, in their order. DeadlineExceeded if they are
  // not all there in time: the rest is cancelled. Errors of Submit.
  absl::StatusOr<std::vector<absl::StatusOr<std::string>>> Map(
      absl::Span<const std::string> inputs,
      absl::Duration timeout = absl::InfiniteDuration());

  // No more Submit. What was submitted is done, within Get and Join.
  void Close();
  // Closes, waits until all tasks have results and all processes have ended,
  // and leaves nothing behind. Results stay with their PoolTasks.
  // DeadlineExceeded: call again, or Terminate. (It waits for the fork server,
  // up to its time-out.)
  absl::Status Join(absl::Duration timeout = absl::InfiniteDuration());
  // Kills the workers, cancels all tasks, and leaves nothing behind.
  void Terminate();

  // Of the workers that are known now; for looking at them from outside.
  std::vector<pid_t> worker_pids() const;
  ProcessPoolStats stats() const;

 private:
  explicit ProcessPool(std::shared_ptr<PoolCore> core);

  std::shared_ptr<PoolCore> core_;
};

}  // namespace ipc::process

#endif  // IPC_PROCESS_PROCESS_POOL_H_
