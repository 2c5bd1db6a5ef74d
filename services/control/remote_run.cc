#include "services/control/remote_run.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/control/control.grpc.pb.h"
#include "services/supervisor/proto_time.h"

namespace parley::control {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(100);

// Cancels a call when the caller wants to, from a thread of its own, because a
// synchronous Read can only wait for the server.
class Canceller {
 public:
  Canceller(grpc::ClientContext& context, std::function<bool()> cancelled)
      : context_(context), cancelled_(std::move(cancelled)) {
    if (cancelled_) thread_ = std::thread([this] { Watch(); });
  }
  ~Canceller() {
    done_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Watch() {
    while (!done_) {
      if (cancelled_()) return context_.TryCancel();
      absl::SleepFor(kPollInterval);
    }
  }

  grpc::ClientContext& context_;
  const std::function<bool()> cancelled_;
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

}  // namespace

v1::Verdict RunRemotely(
    const std::string& socket, const Plan& plan, const RunOptions& options,
    const std::function<void(const v1::RunScenarioResponse&)>& emit) {
  const std::unique_ptr<v1::Control::Stub> stub =
      v1::Control::NewStub(grpc::CreateChannel(
          absl::StrCat("unix:", socket), grpc::InsecureChannelCredentials()));
  v1::RunScenarioRequest request;
  *request.mutable_scenario()->mutable_scenario() = plan.scenario;
  const absl::Duration limit = std::min(
      options.time_limit, supervisor::FromProto(plan.scenario.time_limit()));
  *request.mutable_scenario()->mutable_scenario()->mutable_time_limit() =
      supervisor::ToProto(limit);
  v1::Verdict verdict;
  grpc::ClientContext context;
  Canceller canceller(context, options.cancelled);
  const std::unique_ptr<grpc::ClientReader<v1::RunScenarioResponse>> reader =
      stub->RunScenario(&context, request);
  v1::RunScenarioResponse event;
  while (reader->Read(&event)) {
    if (event.has_verdict()) verdict = event.verdict();
    emit(event);
  }
  const grpc::Status status = reader->Finish();
  if (verdict.result() != v1::Verdict::RESULT_UNSPECIFIED) return verdict;

  const bool cancelled = status.error_code() == grpc::StatusCode::CANCELLED;
  verdict.set_result(cancelled ? v1::Verdict::INCONCLUSIVE
                               : v1::Verdict::INFRASTRUCTURE);
  verdict.set_detail(cancelled
                         ? "the run was cancelled"
                         : absl::StrCat("no verdict from the server at ",
                                        socket, ": ", status.error_message(),
                                        "; is `parley serve` running?"));
  v1::RunScenarioResponse end;
  *end.mutable_time() = supervisor::ToProto(absl::Now());
  *end.mutable_verdict() = verdict;
  emit(end);
  return verdict;
}

}  // namespace parley::control
