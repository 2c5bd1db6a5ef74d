#include "ipc/process/pool_core.h"

#include <signal.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ipc/base/memory.h"
#include "ipc/base/posix_error.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/policy.h"

namespace ipc::process {
namespace {

using mqueue::Queue;

constexpr int kMaxWorkers = 200;
// How long Terminate waits for the fork server before it kills it.
constexpr absl::Duration kServerTimeout = absl::Seconds(10);

absl::Duration SinceMonotonic(int64_t since_ns) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::DurationFromTimespec(now) - absl::Nanoseconds(since_ns);
}

absl::StatusOr<Queue> CreateQueue(uint64_t slots, size_t payload_bytes,
                                  int workers, mqueue::Delivery delivery) {
  return Queue::CreateAnonymous(
      {.slots = slots,
       .message_bytes = sizeof(PoolHeader) + payload_bytes,
       .delivery = delivery,
       // Those of the dead are in use until somebody waits and finds them.
       .participants = std::min<uint64_t>(512, 2 * workers + 32)});
}

}  // namespace

absl::StatusOr<std::shared_ptr<PoolCore>> PoolCore::Create(
    PoolFunction function, const ProcessPoolOptions& options) {
  if (options.workers < 1 || options.workers > kMaxWorkers ||
      options.max_attempts < 1 ||
      options.max_attempts > static_cast<int>(PoolBoard::kMaxAttempts) ||
      options.queue_slots < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "process pool: workers (", options.workers, ") go from 1 to ",
        kMaxWorkers, ", max_attempts (", options.max_attempts, ") from 1 to ",
        PoolBoard::kMaxAttempts, ", queue_slots (", options.queue_slots,
        ") from 1"));
  }
  auto core = std::make_shared<PoolCore>();
  core->function_ = std::move(function);
  core->options_ = options;
  // First, so that it has nothing of what comes next.
  if (absl::Status s = core->StartServer(); !s.ok()) return s;
  absl::Status status = core->Prepare();
  for (int i = 0; status.ok() && i < options.workers; ++i) {
    status = core->StartWorker(i, Deadline::Infinite());
  }
  if (!status.ok()) {
    core->Terminate();
    return status;
  }
  return core;
}

absl::StatusOr<PoolCore::Task> PoolCore::Submit(absl::string_view input) {
  if (closed_) {
    return absl::FailedPreconditionError(
        "process pool: it is closed: create another one");
  }
  if (input.size() > options_.max_input_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("process pool: an input of ", input.size(),
                     " bytes, and there is "
                     "room for ",
                     options_.max_input_bytes,
                     ": raise ProcessPoolOptions::max_input_bytes"));
  }
  Task task = std::make_shared<PoolTask::State>();
  task->core = shared_from_this();
  task->input = std::string(input);
  backlog_.push_back(task);
  Progress(Deadline::After(absl::ZeroDuration()));
  return task;
}

void PoolCore::WaitFor(const Task& task, Deadline deadline) {
  while (!task->result.has_value()) {
    Progress(deadline);
    if (deadline.HasPassed()) return;
  }
}

void PoolCore::Settle(const Task& task, absl::StatusOr<std::string> result) {
  if (task->result.has_value()) return;
  Withdraw(task);
  const auto waiting = std::find(backlog_.begin(), backlog_.end(), task);
  if (waiting != backlog_.end()) backlog_.erase(waiting);
  SettleSent(task, std::move(result));
}

absl::Status PoolCore::Join(absl::Duration timeout) {
  Close();
  const Deadline deadline = Deadline::After(timeout);
  while (!IsIdle()) {
    if (deadline.HasPassed()) {
      return absl::DeadlineExceededError(
          absl::StrCat("process pool: after ", absl::FormatDuration(timeout),
                       " ", backlog_.size() + sent_.size(),
                       " tasks are not done: join again, or terminate"));
    }
    Progress(deadline);
  }
  if (!ended_) {
    if (absl::Status s = JoinWorkers(deadline); !s.ok()) return s;
    ended_ = true;
  }
  // That it was killed does not matter any more.
  absl::Status stopped = server_->Stop(deadline);
  return absl::IsDeadlineExceeded(stopped) ? stopped : absl::OkStatus();
}

void PoolCore::Terminate() {
  Abandon();
  if (server_ == nullptr) return;
  // Of a server that is stopped nobody would learn how they ended.
  server_->server().Signal(SIGCONT).IgnoreError();
  const Deadline deadline = Deadline::After(kServerTimeout);
  for (Slot& slot : slots_) {
    if (slot.worker.has_value()) {
      slot.worker->process.Join(deadline.Remaining()).status().IgnoreError();
    }
    slot = {};
  }
  if (absl::IsDeadlineExceeded(server_->Stop(deadline))) {
    // Somebody has stopped it again, or it adopted a child of a worker's.
    server_->server().Kill().IgnoreError();
    server_->Stop(Deadline::Infinite()).IgnoreError();
  }
}

void PoolCore::Abandon() {
  if (getpid() != owner_) return;
  closed_ = true;
  ended_ = true;
  for (const Slot& slot : slots_) {
    if (slot.worker.has_value()) slot.worker->process.Kill().IgnoreError();
  }
  SettleAll(absl::CancelledError("process pool: it was terminated"));
}

std::vector<pid_t> PoolCore::worker_pids() const {
  std::vector<pid_t> pids;
  for (const Slot& slot : slots_) {
    if (slot.worker.has_value()) pids.push_back(slot.worker->process.pid());
  }
  return pids;
}

absl::Status PoolCore::JoinWorkers(Deadline deadline) {
  if (absl::Status s = tasks_->CloseForSend(); !s.ok()) return s;
  // Whoever was asked for may have a task by now, for which the others stay: so
  // it is to be known here. If it cannot be started, so much the better.
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].request.has_value() &&
        absl::IsDeadlineExceeded(StartWorker(i, deadline))) {
      return absl::DeadlineExceededError(
          "process pool: all tasks are done, but a worker was asked for, and "
          "its fork server is silent: join again, or terminate");
    }
  }
  for (Slot& slot : slots_) {
    while (slot.worker.has_value()) {
      // Results that nobody waits for any more must not hold a worker up, nor
      // must a task: idle workers stay for it, as it may become theirs.
      ReceiveAll();
      for (size_t i = 0; i < slots_.size(); ++i) {
        if (slots_[i].worker.has_value()) CheckTime(i);
      }
      const Process& process = slot.worker->process;
      const absl::StatusOr<ExitStatus> status = slot.worker->process.Join(
          std::min(ProcessPool::kTick, deadline.Remaining()));
      if (!absl::IsDeadlineExceeded(status.status())) {
        slot.worker.reset();
      } else if (deadline.HasPassed()) {
        return absl::DeadlineExceededError(absl::StrCat(
            "process pool: all tasks are done, but worker ", process.pid(),
            process.IsAlive() ? " has not ended"
                              : " has ended and its fork server is silent",
            ": join again, or terminate"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status PoolCore::StartServer() {
  absl::StatusOr<std::unique_ptr<ForkClient>> server = ForkClient::Create(
      {{"worker",
        [function = function_](absl::string_view plan,
                               std::vector<UniqueFd> fds) {
          return RunPoolWorker(function, plan, std::move(fds));
        }}},
      // A worker lasts, and seldom has to be replaced.
      {.keep_fds = {}, .death_signal = SIGKILL, .keep_spare = false});
  if (!server.ok()) return Annotate(server.status(), "process pool");
  server_ = *std::move(server);
  server_is_gone_ = false;
  return absl::OkStatus();
}

absl::Status PoolCore::Prepare() {
  slots_.resize(options_.workers);
  absl::StatusOr<Queue> tasks =
      CreateQueue(options_.queue_slots, options_.max_input_bytes,
                  options_.workers, mqueue::Delivery::kExplicitAck);
  if (!tasks.ok()) return Annotate(tasks.status(), "process pool: tasks");
  // Room for what a Status has to say.
  absl::StatusOr<Queue> results = CreateQueue(
      options_.queue_slots, std::max<size_t>(options_.max_result_bytes, 1024),
      options_.workers, mqueue::Delivery::kAutoAck);
  if (!results.ok()) return Annotate(results.status(), "process pool: results");
  tasks_.emplace(*std::move(tasks));
  results_.emplace(*std::move(results));

  words_ = tasks_->capacity() + options_.workers;
  const size_t size = PoolBoard::SizeBytes(options_.workers, words_);
  absl::StatusOr<UniqueFd> fd = CreateMemory("process pool", size);
  if (!fd.ok()) return fd.status();
  absl::StatusOr<Mapping> mapping = Mapping::Create(fd->get(), size);
  if (!mapping.ok()) return mapping.status();
  board_fd_ = *std::move(fd);
  board_ = PoolBoard(*std::move(mapping), options_.workers);
  for (uint32_t i = 0; i < words_; ++i) free_words_.push_back(i);
  return absl::OkStatus();
}

absl::Status PoolCore::StartWorker(size_t index, Deadline deadline) {
  Slot& slot = slots_[index];
  if (!slot.request.has_value()) {
    board_.worker(index).running = 0;
    const PoolWorkerPlan plan = {
        .index = index,
        .workers = static_cast<uint64_t>(options_.workers),
        .words = words_,
        .max_attempts = static_cast<uint64_t>(options_.max_attempts)};
    const absl::string_view plan_bytes(reinterpret_cast<const char*>(&plan),
                                       sizeof(plan));
    const absl::StatusOr<uint64_t> request = server_->Request(
        "worker", plan_bytes, {tasks_->fd(), results_->fd(), board_fd_.get()},
        deadline);
    if (!request.ok()) return request.status();
    slot.request = *request;
  }
  absl::StatusOr<Process> process = server_->Await(*slot.request, deadline);
  if (absl::IsDeadlineExceeded(process.status())) return process.status();
  slot.request.reset();
  if (!process.ok()) return process.status();
  slot.worker.emplace(Worker{.process = *std::move(process)});
  return absl::OkStatus();
}

absl::Status PoolCore::RenewServer() {
  server_is_gone_ = true;
  for (Slot& slot : slots_) slot.request.reset();
  // If it only has lost its socket, it is of no use either.
  server_->server().Kill().IgnoreError();
  const absl::Status status =
      server_->Stop(Deadline::After(absl::ZeroDuration()));
  // It has not quite ended.
  if (absl::IsDeadlineExceeded(status)) return status;
  return StartServer();
}

void PoolCore::Progress(Deadline deadline) {
  if (ended_) return;
  SendBacklog();
  // A caller that never waits looks after workers, too, but not each time.
  if (next_look_.HasPassed()) LookAfterWorkers(deadline);
  if (ended_) return;
  if (ReceiveAll() || deadline.HasPassed() || IsIdle()) return;
  absl::StatusOr<std::string> message =
      results_->Receive(Deadline::Earlier(deadline, next_look_).Remaining());
  if (message.ok()) {
    TakeResult(*message);
  } else if (!absl::IsDeadlineExceeded(message.status())) {
    GiveUp(message.status());
  }
}

void PoolCore::SendBacklog() {
  while (!backlog_.empty() && !free_words_.empty()) {
    const Task task = backlog_.front();
    const uint32_t word = free_words_.back();
    const uint64_t id = next_id_;
    const PoolHeader header = {.id = id, .word = word, .code = 0};
    absl::StatusOr<mqueue::Loan> loan =
        tasks_->TryLoan(sizeof(header) + task->input.size());
    absl::Status status = loan.status();
    if (status.ok()) {
      std::memcpy(loan->data().data(), &header, sizeof(header));
      std::copy(task->input.begin(), task->input.end(),
                reinterpret_cast<char*>(loan->data().data()) + sizeof(header));
      // Before a worker can have the message.
      board_.Open(word, id);
      status =
          tasks_->Send(*std::move(loan), {.timeout = absl::ZeroDuration()});
      if (!status.ok()) board_.Settle(word);
    }
    if (absl::IsResourceExhausted(status) || absl::IsDeadlineExceeded(status)) {
      return;  // full
    }
    if (!status.ok()) return GiveUp(status);
    ++next_id_;
    free_words_.pop_back();
    backlog_.pop_front();
    task->id = id;
    task->word = word;
    sent_[id] = task;
  }
}

bool PoolCore::ReceiveAll() {
  bool any = false;
  while (true) {
    absl::StatusOr<std::optional<std::string>> message = results_->TryReceive();
    if (!message.ok()) {
      GiveUp(message.status());
      return true;
    }
    if (!message->has_value()) return any;
    TakeResult(**message);
    any = true;
  }
}

void PoolCore::TakeResult(absl::string_view message) {
  PoolHeader header;
  if (message.size() < sizeof(header)) return;
  std::memcpy(&header, message.data(), sizeof(header));
  early_deaths_ = 0;
  const auto sent = sent_.find(header.id);
  if (sent == sent_.end()) return;  // settled otherwise meanwhile
  const Task task = sent->second;
  message.remove_prefix(sizeof(header));
  Withdraw(task);
  if (header.code == 0) {
    SettleSent(task, std::string(message));
  } else {
    SettleSent(task, absl::Status(static_cast<absl::StatusCode>(header.code),
                                  message));
  }
}

void PoolCore::Withdraw(const Task& task) {
  const auto sent = sent_.find(task->id);
  if (sent == sent_.end() || sent->second != task) return;
  board_.Settle(task->word);
  free_words_.push_back(task->word);
  sent_.erase(sent);
}

void PoolCore::SettleSent(const Task& task,
                          absl::StatusOr<std::string> result) {
  task->result = std::move(result);
  task->core = nullptr;
  task->input.clear();
  ++stats_.finished;
}

void PoolCore::SettleAll(const absl::Status& status) {
  std::vector<Task> tasks(backlog_.begin(), backlog_.end());
  for (const auto& [id, task] : sent_) tasks.push_back(task);
  for (const Task& task : tasks) Settle(task, status);
}

void PoolCore::GiveUp(const absl::Status& status) {
  closed_ = true;
  for (const Slot& slot : slots_) {
    if (slot.worker.has_value()) slot.worker->process.Kill().IgnoreError();
  }
  SettleAll(absl::UnavailableError(
      absl::StrCat("process pool: it cannot go on: ", status.message(),
                   ": create another one")));
}

void PoolCore::LookAfterWorkers(Deadline deadline) {
  next_look_ = Deadline::After(ProcessPool::kTick);
  deadline = Deadline::Earlier(deadline, next_look_);
  absl::Status failure;
  if (server_is_gone_) failure = RenewServer();
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].worker.has_value()) {
      if (slots_[i].worker->process.IsAlive()) {
        CheckTime(i);
        continue;
      }
      Bury(i, deadline);
      if (slots_[i].worker.has_value()) continue;
    }
    if (server_is_gone_ || (closed_ && IsIdle())) continue;
    const absl::Status status = StartWorker(i, deadline);
    if (absl::IsUnavailable(status)) {
      // Somebody killed it, and with it all workers.
      ++early_deaths_;
      last_end_ = std::string(status.message());
      failure = RenewServer();
    } else if (!status.ok()) {
      failure = status;
    }
  }
  SettleLost();
  const bool has_workers =
      std::any_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
        return slot.worker.has_value() || slot.request.has_value();
      });
  // While there is one, others may be replaced by better luck.
  if (!has_workers && !failure.ok() && !absl::IsDeadlineExceeded(failure)) {
    GiveUp(failure);
  }
  if (early_deaths_ > 3 * options_.workers + 10) {
    GiveUp(absl::UnavailableError(
        absl::StrCat(early_deaths_,
                     " workers in a row have ended without a task, the last of "
                     "them: ",
                     last_end_)));
  }
}

void PoolCore::CheckTime(size_t index) {
  const WorkerEntry& entry = board_.worker(index);
  const uint64_t id = entry.running;
  const int64_t since = entry.since_ns;
  // Not two halves of different tasks.
  if (id == 0 || entry.running != id) return;
  if (SinceMonotonic(since) <= options_.task_timeout) return;
  Worker& worker = *slots_[index].worker;
  worker.killed_for = id;
  worker.process.Kill().IgnoreError();
  const auto sent = sent_.find(id);
  if (sent == sent_.end()) return;  // nobody waits for it, but it has run on
  const Task task = sent->second;
  Settle(task, absl::DeadlineExceededError(absl::StrCat(
                   "process pool: the task ran for more than ",
                   absl::FormatDuration(options_.task_timeout),
                   ", so its worker ", worker.process.pid(), " was killed")));
}

void PoolCore::Bury(size_t index, Deadline deadline) {
  std::optional<Worker>& slot = slots_[index].worker;
  const absl::StatusOr<ExitStatus> status =
      slot->process.Join(deadline.Remaining());
  if (absl::IsDeadlineExceeded(status.status())) return;
  ++stats_.deaths;
  const Worker worker = *std::exchange(slot, std::nullopt);
  const uint64_t id = board_.worker(index).running.exchange(0);
  last_end_ =
      absl::StrCat(worker.process.pid(), ", ",
                   status.ok() ? status->ToString() : "for an unknown reason");
  // A result that it has sent counts.
  ReceiveAll();
  const auto sent = sent_.find(id);
  if (sent == sent_.end()) {
    // None of a task that is still wanted.
    if (worker.killed_for == 0) ++early_deaths_;
  } else if (worker.killed_for != 0) {
    // It had gone on to another task before our signal came: not that one's
    // fault.
    const Task task = sent->second;
    Withdraw(task);
    backlog_.push_front(task);
  } else {
    CountDeath(sent->second, worker.process.pid(), status);
  }
}

void PoolCore::CountDeath(Task task, pid_t pid,
                          const absl::StatusOr<ExitStatus>& status) {
  task->deaths.push_back(absl::StrCat(
      "worker ", pid, " ",
      !status.ok()          ? "ended together with its fork server"
      : status->signal != 0 ? absl::StrCat("was ", status->ToString())
                            : status->ToString()));
  wounded_.push_back(std::move(task));
  SettleLost();
}

void PoolCore::SettleLost() {
  const std::vector<Task> wounded = std::move(wounded_);
  wounded_.clear();
  for (const Task& task : wounded) {
    if (sent_.count(task->id) == 0) continue;  // settled, or to be sent anew
    if (!board_.IsLost(task->word, task->id, options_.max_attempts)) {
      wounded_.push_back(task);
      continue;
    }
    const size_t deaths = task->deaths.size();
    Settle(task, absl::AbortedError(
                     absl::StrCat("process pool: the task was begun ", deaths,
                                  deaths == 1 ? " time" : " times",
                                  ", and each time its worker died: ",
                                  absl::StrJoin(task->deaths, ", "))));
  }
}

}  // namespace ipc::process
