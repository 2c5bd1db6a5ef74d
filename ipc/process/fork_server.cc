#include "ipc/process/fork_server.h"

#include <unistd.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "ipc/base/deadline.h"
#include "ipc/process/fork_client.h"

namespace ipc::process {

// A client that many threads use in turns.
class ForkServer::Client {
 public:
  explicit Client(std::unique_ptr<ForkClient> client)
      : client_(std::move(client)) {}

  absl::StatusOr<Process> Start(absl::string_view function,
                                absl::string_view argument,
                                absl::Span<const int> fds,
                                absl::Duration timeout) {
    const Deadline deadline = Deadline::After(timeout);
    if (absl::Status s = TakeTurn(deadline); !s.ok()) return s;
    const absl::Cleanup end_turn = [this] { EndTurn(); };
    absl::StatusOr<uint64_t> request =
        client_->Request(function, argument, fds, deadline);
    if (!request.ok()) return request.status();
    absl::StatusOr<Process> child = client_->Await(*request, deadline);
    if (absl::IsDeadlineExceeded(child.status())) client_->GiveUp(*request);
    return child;
  }

  absl::Status Stop(absl::Duration timeout) {
    const Deadline deadline = Deadline::After(timeout);
    if (absl::Status s = TakeTurn(deadline); !s.ok()) return s;
    const absl::Cleanup end_turn = [this] { EndTurn(); };
    return client_->Stop(deadline);
  }

  const Process& server() const { return client_->server(); }

 private:
  // Who has the turn may use `client_`, and wait with no lock held, so that the
  // time-outs of others go on.
  absl::Status TakeTurn(Deadline deadline) {
    if (getpid() != owner_) {
      // Another thread may have had the turn when this process was forked.
      return absl::FailedPreconditionError(
          absl::StrCat("fork server: it is process ", owner_,
                       "'s, which has forked this one: create one here"));
    }
    absl::MutexLock lock(&mutex_);
    const auto is_free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !busy_;
    };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&is_free),
                                 deadline.Remaining())) {
      return absl::DeadlineExceededError(
          absl::StrCat("fork server (process ", client_->server().pid(),
                       "): it was another thread's turn all the time"));
    }
    busy_ = true;
    return absl::OkStatus();
  }
  void EndTurn() {
    absl::MutexLock lock(&mutex_);
    busy_ = false;
  }

  const pid_t owner_ = getpid();
  absl::Mutex mutex_;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  const std::unique_ptr<ForkClient> client_;
};

ForkServer::ForkServer(std::unique_ptr<Client> client)
    : client_(std::move(client)) {}
ForkServer::ForkServer(ForkServer&&) noexcept = default;
ForkServer& ForkServer::operator=(ForkServer&&) noexcept = default;
ForkServer::~ForkServer() = default;

absl::StatusOr<ForkServer> ForkServer::Create(
    ForkFunctions functions, const ForkServerOptions& options) {
  absl::StatusOr<std::unique_ptr<ForkClient>> client =
      ForkClient::Create(std::move(functions), options);
  if (!client.ok()) return client.status();
  return ForkServer(std::make_unique<Client>(*std::move(client)));
}

absl::StatusOr<ForkServer> ForkServer::CreateFromProgram(SpawnOptions program) {
  absl::StatusOr<std::unique_ptr<ForkClient>> client =
      ForkClient::CreateFromProgram(std::move(program));
  if (!client.ok()) return client.status();
  return ForkServer(std::make_unique<Client>(*std::move(client)));
}

absl::StatusOr<Process> ForkServer::Start(absl::string_view function,
                                          absl::string_view argument,
                                          absl::Span<const int> fds,
                                          absl::Duration timeout) {
  return client_->Start(function, argument, fds, timeout);
}

absl::Status ForkServer::Stop(absl::Duration timeout) {
  return client_->Stop(timeout);
}

const Process& ForkServer::server() const { return client_->server(); }

}  // namespace ipc::process
