#include "ipc/process/pool_worker.h"

#include <time.h>

#include <cstring>
#include <exception>
#include <iostream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/base/memory.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/queue.h"
#include "ipc/process/pool_board.h"

namespace ipc::process {
namespace {

using mqueue::Message;
using mqueue::Queue;

int64_t MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// The task's own error and an exception are results, too.
absl::StatusOr<std::string> Run(const PoolFunction& function,
                                absl::string_view input) {
  try {
    return function(input);
  } catch (const std::exception& e) {
    return absl::UnknownError(absl::StrCat("the task threw: ", e.what()));
  } catch (...) {
    return absl::UnknownError("the task threw something");
  }
}

absl::Status SendResult(Queue& results, PoolHeader header,
                        const absl::StatusOr<std::string>& result) {
  const size_t room = results.max_message_bytes() - sizeof(header);
  std::string too_long;
  absl::string_view payload;
  if (!result.ok()) {
    header.code = static_cast<int32_t>(result.status().code());
    payload = result.status().message().substr(0, room);
  } else if (result->size() > room) {
    header.code = static_cast<int32_t>(absl::StatusCode::kResourceExhausted);
    too_long = absl::StrCat("the task's result has ", result->size(),
                            " bytes, and there is room for ", room,
                            ": raise ProcessPoolOptions::max_result_bytes");
    payload = too_long;
  } else {
    header.code = 0;
    payload = *result;
  }
  absl::StatusOr<mqueue::Loan> loan =
      results.Lend(sizeof(header) + payload.size());
  if (!loan.ok()) return loan.status();
  std::memcpy(loan->data().data(), &header, sizeof(header));
  if (!payload.empty()) {
    std::memcpy(loan->data().data() + sizeof(header), payload.data(),
                payload.size());
  }
  return results.Send(*std::move(loan));
}

absl::Status Serve(const PoolFunction& function, absl::string_view plan_bytes,
                   std::vector<UniqueFd> fds) {
  PoolWorkerPlan plan;
  if (plan_bytes.size() != sizeof(plan) || fds.size() != 3) {
    return absl::InternalError("a plan of another version");
  }
  std::memcpy(&plan, plan_bytes.data(), sizeof(plan));
  absl::StatusOr<Mapping> mapping = Mapping::Create(
      fds[2].get(), PoolBoard::SizeBytes(plan.workers, plan.words));
  if (!mapping.ok()) return mapping.status();
  const PoolBoard board(*std::move(mapping), plan.workers);
  WorkerEntry& self = board.worker(plan.index);
  absl::StatusOr<Queue> tasks =
      Queue::FromFd(std::move(fds[0]), mqueue::Role::kReceive);
  if (!tasks.ok()) return tasks.status();
  absl::StatusOr<Queue> results =
      Queue::FromFd(std::move(fds[1]), mqueue::Role::kSend);
  if (!results.ok()) return results.status();

  while (true) {
    absl::StatusOr<Message> message = tasks->ReceiveMessage();
    if (absl::IsOutOfRange(message.status())) return absl::OkStatus();
    if (!message.ok()) return message.status();
    const absl::string_view text = message->text();
    PoolHeader header;
    if (text.size() < sizeof(header)) {
      return absl::DataLossError("a task without a header");
    }
    std::memcpy(&header, text.data(), sizeof(header));
    if (header.word < plan.words) {
      self.since_ns = MonotonicNow();
      self.running = header.id;
      if (board.Begin(header.word, header.id, plan.max_attempts)) {
        absl::Status sent = SendResult(
            *results, header, Run(function, text.substr(sizeof(header))));
        if (!sent.ok()) return sent;
        board.Finish(header.word, header.id);
      }
      // From here on, this worker's death is none of the task's.
      self.running = 0;
    }
    if (absl::Status s = message->Ack(); !s.ok()) return s;
  }
}

}  // namespace

int RunPoolWorker(const PoolFunction& function, absl::string_view plan,
                  std::vector<UniqueFd> fds) {
  const absl::Status status = Serve(function, plan, std::move(fds));
  if (status.ok()) return 0;
  std::cerr << "worker of a process pool: " << status << "\n";
  return 70;  // EX_SOFTWARE of sysexits.h
}

}  // namespace ipc::process
