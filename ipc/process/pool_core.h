// What ProcessPool and PoolTask are handles to; see process_pool.h.
#ifndef IPC_PROCESS_POOL_CORE_H_
#define IPC_PROCESS_POOL_CORE_H_

#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/base/unique_fd.h"
#include "ipc/mqueue/queue.h"
#include "ipc/process/exit_status.h"
#include "ipc/process/fork_client.h"
#include "ipc/process/pool_board.h"
#include "ipc/process/pool_worker.h"
#include "ipc/process/process.h"
#include "ipc/process/process_pool.h"

namespace ipc::process {

class PoolTask::State {
 public:
  std::shared_ptr<PoolCore> core;
  std::string input;
  std::vector<std::string> deaths;  // "worker 1234 was killed by SIGSEGV"
  // While it is in the queue or with a worker.
  uint64_t id = 0;
  uint32_t word = 0;
  std::optional<absl::StatusOr<std::string>> result;
};

// Invariants:
// 1. A task without a result is either in `backlog_` or in `sent_`, by its id;
//    the word of the latter is its own, all others are in `free_words_`.
// 2. An id is never used again. A task that is sent anew gets another one.
class PoolCore : public std::enable_shared_from_this<PoolCore> {
 public:
  using Task = std::shared_ptr<PoolTask::State>;

  static absl::StatusOr<std::shared_ptr<PoolCore>> Create(
      PoolFunction function, const ProcessPoolOptions& options);

  absl::StatusOr<Task> Submit(absl::string_view input);

  // Until `task` is done or the deadline has passed.
  void WaitFor(const Task& task, Deadline deadline);

  // Gives `task` its result, unless it has one. Here and below, `task` must not
  // be the element of `sent_`, which goes.
  void Settle(const Task& task, absl::StatusOr<std::string> result);

  void Close() { closed_ = true; }

  absl::Status Join(absl::Duration timeout);

  void Terminate();

  // Terminate, but for what waits.
  void Abandon();

  std::vector<pid_t> worker_pids() const;

  const ProcessPoolStats& stats() const { return stats_; }

 private:
  struct Worker {
    Process process;
    // The task for which it was killed, as that took too long.
    uint64_t killed_for = 0;
  };
  // A place for a worker: with one, or to be given one by the server, which has
  // not answered to that yet, or neither.
  struct Slot {
    std::optional<Worker> worker;
    std::optional<uint64_t> request;
  };

  absl::Status StartServer();
  // Makes the queues and the board.
  absl::Status Prepare();
  // Asks the server for one, and waits for it until the deadline; which is to
  // be done again as long as there is a request. Unavailable if the server has
  // ended.
  absl::Status StartWorker(size_t index, Deadline deadline);
  // Starts another server, as one has ended, and its workers with it.
  // DeadlineExceeded if it has not ended quite: the next look tries again.
  absl::Status RenewServer();
  bool IsIdle() const { return backlog_.empty() && sent_.empty(); }
  // Once there is no task left.
  absl::Status JoinWorkers(Deadline deadline);

  // One round: hands tasks over, and waits for a result, a death or a time-out,
  // for kTick at most.
  void Progress(Deadline deadline);

  // As much of it as there is room for.
  void SendBacklog();

  // Whether there was any.
  bool ReceiveAll();

  void TakeResult(absl::string_view message);

  // Whatever comes for it from now on is not its.
  void Withdraw(const Task& task);

  void SettleSent(const Task& task, absl::StatusOr<std::string> result);

  void SettleAll(const absl::Status& status);

  // The pool cannot go on.
  void GiveUp(const absl::Status& status);

  // Never waits for longer than kTick, nor than to the deadline: a server that
  // is stopped must not keep results from those who wait for them.
  void LookAfterWorkers(Deadline deadline);
  // Kills a worker whose task takes too long, also if nobody wants it any more.
  void CheckTime(size_t index);
  // Of a worker that has ended, once its server has told how.
  void Bury(size_t index, Deadline deadline);
  void CountDeath(Task task, pid_t pid,
                  const absl::StatusOr<ExitStatus>& status);

  // Gives up tasks that have used up their attempts. To be asked again: a
  // worker that is about to throw a message away for that reason has the task
  // in its entry for a moment.
  void SettleLost();

  const pid_t owner_ = getpid();
  PoolFunction function_;
  ProcessPoolOptions options_;
  std::unique_ptr<ForkClient> server_;
  bool server_is_gone_ = false;  // to be renewed
  std::optional<mqueue::Queue> tasks_;
  std::optional<mqueue::Queue> results_;
  UniqueFd board_fd_;
  PoolBoard board_;
  size_t words_ = 0;
  std::vector<Slot> slots_;

  std::deque<Task> backlog_;                 // not sent yet
  std::unordered_map<uint64_t, Task> sent_;  // in the queue, or with a worker
  std::vector<Task> wounded_;  // of those sent, some that lost a worker
  std::vector<uint32_t> free_words_;
  uint64_t next_id_ = 1;
  Deadline next_look_ = Deadline::After(absl::ZeroDuration());
  int early_deaths_ = 0;  // in a row, of workers without a task
  std::string last_end_;  // how the last one ended
  bool closed_ = false;
  bool ended_ = false;  // no processes are left, or nobody cares
  ProcessPoolStats stats_;
};

}  // namespace ipc::process

#endif  // IPC_PROCESS_POOL_CORE_H_
