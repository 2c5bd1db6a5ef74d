#include "ipc/process/process_pool.h"

#include "absl/strings/str_cat.h"
#include "ipc/base/deadline.h"
#include "ipc/process/pool_core.h"

namespace ipc::process {

absl::StatusOr<std::string> PoolTask::Get(absl::Duration timeout) {
  if (const std::shared_ptr<PoolCore> core = state_->core; core != nullptr) {
    core->WaitFor(state_, Deadline::After(timeout));
  }
  if (state_->result.has_value()) return *state_->result;
  return absl::DeadlineExceededError(
      absl::StrCat("process pool: the task is not done after ",
                   absl::FormatDuration(timeout), ", and goes on"));
}

bool PoolTask::done() const { return state_->result.has_value(); }

void PoolTask::Cancel() {
  if (const std::shared_ptr<PoolCore> core = state_->core; core != nullptr) {
    core->Settle(state_, absl::CancelledError("process pool: cancelled"));
  }
}

ProcessPool::ProcessPool(std::shared_ptr<PoolCore> core)
    : core_(std::move(core)) {}
ProcessPool::ProcessPool(ProcessPool&&) noexcept = default;
ProcessPool& ProcessPool::operator=(ProcessPool&& other) noexcept {
  if (core_ != nullptr) core_->Abandon();
  core_ = std::move(other.core_);
  return *this;
}
ProcessPool::~ProcessPool() {
  if (core_ != nullptr) core_->Abandon();
}

absl::StatusOr<ProcessPool> ProcessPool::Create(
    PoolFunction function, const ProcessPoolOptions& options) {
  absl::StatusOr<std::shared_ptr<PoolCore>> core =
      PoolCore::Create(std::move(function), options);
  if (!core.ok()) return core.status();
  return ProcessPool(*std::move(core));
}

absl::StatusOr<PoolTask> ProcessPool::Submit(absl::string_view input) {
  absl::StatusOr<PoolCore::Task> task = core_->Submit(input);
  if (!task.ok()) return task.status();
  return PoolTask(*std::move(task));
}

absl::StatusOr<std::vector<absl::StatusOr<std::string>>> ProcessPool::Map(
    absl::Span<const std::string> inputs, absl::Duration timeout) {
  const Deadline deadline = Deadline::After(timeout);
  std::vector<PoolTask> tasks;
  absl::Status status;
  for (const std::string& input : inputs) {
    absl::StatusOr<PoolTask> task = Submit(input);
    if (!task.ok()) {
      status = task.status();
      break;
    }
    tasks.push_back(*std::move(task));
  }
  std::vector<absl::StatusOr<std::string>> results;
  for (PoolTask& task : tasks) {
    if (!status.ok()) {
      task.Cancel();
      continue;
    }
    absl::StatusOr<std::string> result = task.Get(deadline.Remaining());
    if (task.done()) {
      results.push_back(std::move(result));
    } else {
      status = absl::DeadlineExceededError(absl::StrCat(
          "process pool: ", results.size(), " of ", tasks.size(),
          " tasks were done within ", absl::FormatDuration(timeout),
          "; the rest is cancelled"));
      task.Cancel();
    }
  }
  if (!status.ok()) return status;
  return results;
}

void ProcessPool::Close() { core_->Close(); }
absl::Status ProcessPool::Join(absl::Duration timeout) {
  return core_->Join(timeout);
}
void ProcessPool::Terminate() { core_->Terminate(); }
std::vector<pid_t> ProcessPool::worker_pids() const {
  return core_->worker_pids();
}
ProcessPoolStats ProcessPool::stats() const { return core_->stats(); }

}  // namespace ipc::process
