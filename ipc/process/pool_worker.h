// The worker's side of a ProcessPool: takes tasks, runs them, sends results.
#ifndef IPC_PROCESS_POOL_WORKER_H_
#define IPC_PROCESS_POOL_WORKER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/base/unique_fd.h"

namespace ipc::process {

using PoolFunction =
    std::function<absl::StatusOr<std::string>(absl::string_view)>;

// What a worker is told when it is started, as bytes.
struct PoolWorkerPlan {
  uint64_t index;  // of its WorkerEntry
  uint64_t workers;
  uint64_t words;
  uint64_t max_attempts;
};

// `fds`: the queues of tasks and of results, and the board. Until the queue of
// tasks is closed and drained; then 0. Another exit code means that it could
// not begin, or that a queue is damaged; standard error tells.
int RunPoolWorker(const PoolFunction& function, absl::string_view plan,
                  std::vector<UniqueFd> fds);

}  // namespace ipc::process

#endif  // IPC_PROCESS_POOL_WORKER_H_
