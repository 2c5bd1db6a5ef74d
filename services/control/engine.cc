#include "services/control/engine.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ipc/base/deadline.h"
#include "ipc/base/posix_error.h"
#include "services/control/checks.h"
#include "services/control/convert.h"
#include "services/control/outcome.h"
#include "services/supervisor/proto_time.h"

namespace parley::control {
namespace {

namespace sup = supervisor::v1;

// How often a caller is asked whether it has cancelled.
constexpr absl::Duration kPollInterval = absl::Milliseconds(100);
// For the supervisor to answer what takes no time by itself.
constexpr absl::Duration kAnswerTimeout = absl::Seconds(10);
// Of one stream of one process; more counts as dropped.
constexpr size_t kMostOutput = 64 << 20;

class ScenarioRun {
 public:
  ScenarioRun(SupervisorLink& link, const Plan& plan, const RunOptions& options,
              const std::function<void(const v1::RunScenarioResponse&)>& emit)
      : link_(link),
        plan_(plan),
        options_(options),
        emit_(emit),
        session_(options.session.empty() ? plan.scenario.name()
                                         : options.session),
        begin_(absl::Now()),
        time_limit_(std::min(supervisor::FromProto(plan.scenario.time_limit()),
                             options.time_limit)),
        deadline_(ipc::Deadline::After(time_limit_)) {}

  v1::Verdict Run() {
    v1::RunScenarioResponse started;
    started.mutable_started()->set_scenario(plan_.scenario.name());
    started.mutable_started()->set_session(session_);
    started.mutable_started()->set_seed(plan_.scenario.seed());
    Emit(std::move(started));
    absl::Status status = Start();
    if (status.ok()) status = FollowToTheEnd();
    return Judge(status);
  }

 private:
  void Emit(v1::RunScenarioResponse event) {
    if (!event.has_time()) {
      *event.mutable_time() = supervisor::ToProto(absl::Now());
    }
    emit_(event);
  }

  // Subscribes before anything can happen, then starts all of it.
  absl::Status Start() {
    sup::ClientMessage list;
    list.mutable_list();
    absl::StatusOr<sup::Response> listed =
        link_.Call(std::move(list), kAnswerTimeout);
    if (!listed.ok()) return listed.status();

    sup::ClientMessage subscribe;
    subscribe.mutable_subscribe()->set_after_revision(
        listed->list().revision());
    subscribe.mutable_subscribe()->set_events(true);
    subscribe.mutable_subscribe()->set_logs(true);
    subscribe.mutable_subscribe()->set_session(session_);
    const absl::Status subscribed =
        link_.Call(std::move(subscribe), kAnswerTimeout).status();
    if (!subscribed.ok()) return subscribed;

    sup::ClientMessage up;
    *up.mutable_up()->mutable_session() = plan_.session;
    up.mutable_up()->mutable_session()->set_name(session_);
    up.mutable_up()->set_bound_to_connection(true);
    const absl::Status is_up =
        link_.Call(std::move(up), kAnswerTimeout).status();
    if (!is_up.ok()) {
      return ipc::Annotate(is_up, absl::StrCat("start session ", session_));
    }
    for (const v1::Process& process : plan_.scenario.process()) {
      outcomes_[process.name()].info.set_name(process.name());
    }
    return absl::OkStatus();
  }

  // Until every process has ended, or the run has been cut short.
  absl::Status FollowToTheEnd() {
    while (!AllEnded() && !session_is_down_) {
      if (options_.cancelled && options_.cancelled()) {
        cancelled_ = true;
        return TakeDown("the run was cancelled");
      }
      if (deadline_.HasPassed()) {
        timed_out_ = true;
        return TakeDown(absl::StrCat("the time limit of ",
                                     absl::FormatDuration(time_limit_),
                                     " passed"));
      }
      absl::StatusOr<sup::ServerMessage> message =
          link_.Next(std::min(kPollInterval, deadline_.Remaining()));
      if (absl::IsDeadlineExceeded(message.status())) continue;
      if (!message.ok()) return message.status();
      Handle(*message);
      if (!bad_end_.empty()) {
        return TakeDown(absl::StrCat("it was stopped because ", bad_end_));
      }
    }
    if (session_is_down_) {
      CutShort("its session was taken down by somebody else");
      return absl::OkStatus();
    }
    return TakeDown("");
  }

  // Stops what still runs, forgets the session, and hears of its end. `reason`
  // is empty if nothing runs any more.
  absl::Status TakeDown(const std::string& reason) {
    taking_down_ = true;
    absl::Duration grace = absl::ZeroDuration();
    for (const v1::Process& process : plan_.scenario.process()) {
      grace = std::max(grace, supervisor::FromProto(process.stop().grace()));
    }
    sup::ClientMessage down;
    down.mutable_down()->set_session(session_);
    // Dependents stop before what they depend on: wave by wave.
    const absl::Status status =
        link_
            .Call(std::move(down),
                  grace * static_cast<int>(plan_.waves.size()) + kAnswerTimeout)
            .status();
    if (!status.ok() && !absl::IsNotFound(status)) {
      return ipc::Annotate(status,
                           absl::StrCat("take session ", session_, " down"));
    }
    // The answer can overtake what was pushed before it, if we are slow to
    // read; the last push is that the session is gone.
    const ipc::Deadline deadline = ipc::Deadline::After(kAnswerTimeout);
    while (!session_is_down_) {
      absl::StatusOr<sup::ServerMessage> message =
          link_.Next(deadline.Remaining());
      if (absl::IsDeadlineExceeded(message.status())) break;
      if (!message.ok()) return message.status();
      Handle(*message);
    }
    CutShort(reason);
    return absl::OkStatus();
  }

  // What ended by itself while others were being stopped still counts.
  void CutShort(const std::string& reason) {
    for (auto& [name, outcome] : outcomes_) {
      if (!HasEnded(outcome.info)) {
        outcome.cut_short =
            reason.empty() ? "nothing was heard of its end" : reason;
      } else if (stopped_.contains(name)) {
        outcome.cut_short = reason;
      }
    }
  }

  void Handle(const sup::ServerMessage& message) {
    if (message.has_log() && message.log().session() == session_) {
      HandleLog(message.log());
    }
    if (!message.has_event()) return;
    const sup::Event& event = message.event();
    if (event.has_process() && event.process().session() == session_) {
      HandleProcess(event);
    } else if (event.has_session_down() &&
               event.session_down().name() == session_) {
      session_is_down_ = true;
    }
  }

  void HandleLog(const sup::LogChunk& log) {
    Outcome& outcome = outcomes_[log.process()];
    std::string& text = log.stream() == sup::STDERR ? outcome.err : outcome.out;
    const size_t kept = std::min(log.data().size(), kMostOutput - text.size());
    text.append(log.data(), 0, kept);
    outcome.dropped += log.dropped() + (log.data().size() - kept);

    v1::RunScenarioResponse event;
    event.mutable_output()->set_process(log.process());
    event.mutable_output()->set_stream(ToStream(log.stream()));
    event.mutable_output()->set_data(log.data());
    event.mutable_output()->set_dropped(log.dropped());
    Emit(std::move(event));
  }

  void HandleProcess(const sup::Event& change) {
    const sup::ProcessInfo& info = change.process();
    Outcome& outcome = outcomes_[info.name()];
    outcome.info = info;
    if (info.state() == sup::STOPPING) outcome.stopping = true;
    // One that had not been started yet fails when it is taken down.
    if (taking_down_ &&
        (info.state() == sup::STOPPING || info.state() == sup::FAILED)) {
      stopped_.insert(info.name());
    }
    if (bad_end_.empty() && EndedBadly(plan_.scenario, outcome)) {
      bad_end_ = absl::StrCat(info.name(), " ", DescribeEnd(info));
    }
    v1::RunScenarioResponse event;
    *event.mutable_time() = change.time();
    *event.mutable_process() = ToProcessStatus(info);
    Emit(std::move(event));
  }

  bool AllEnded() const {
    return std::all_of(
        outcomes_.begin(), outcomes_.end(),
        [](const auto& entry) { return HasEnded(entry.second.info); });
  }

  v1::Verdict Judge(const absl::Status& status) {
    v1::Verdict verdict;
    if (!status.ok()) {
      verdict.set_result(v1::Verdict::INFRASTRUCTURE);
      verdict.set_detail(
          absl::IsUnavailable(status)
              ? absl::StrCat("the supervisor has died: ", status.message())
              : std::string(status.message()));
    } else {
      JudgeChecks(verdict);
    }
    *verdict.mutable_duration() = supervisor::ToProto(absl::Now() - begin_);
    v1::RunScenarioResponse event;
    *event.mutable_verdict() = verdict;
    Emit(std::move(event));
    return verdict;
  }

  void JudgeChecks(v1::Verdict& verdict) {
    std::vector<std::string> failed;
    std::vector<std::string> inconclusive;
    for (const v1::Check& check : EvaluateChecks(plan_.scenario, outcomes_)) {
      if (check.result() == v1::Check::FAILED) failed.push_back(check.name());
      if (check.result() == v1::Check::INCONCLUSIVE) {
        inconclusive.push_back(check.name());
      }
      v1::RunScenarioResponse event;
      *event.mutable_check() = check;
      Emit(std::move(event));
    }
    if (timed_out_) {
      verdict.set_result(v1::Verdict::TIME_LIMIT);
      verdict.set_detail(
          absl::StrCat("the time limit of ", absl::FormatDuration(time_limit_),
                       " passed while these ran: ", WhoWasCutShort()));
    } else if (!failed.empty()) {
      verdict.set_result(v1::Verdict::FAILED);
      verdict.set_detail(absl::StrJoin(failed, ", "));
    } else if (cancelled_ || !inconclusive.empty()) {
      verdict.set_result(v1::Verdict::INCONCLUSIVE);
      verdict.set_detail(cancelled_ ? "the run was cancelled"
                                    : absl::StrJoin(inconclusive, ", "));
    } else {
      verdict.set_result(v1::Verdict::PASSED);
    }
  }

  std::string WhoWasCutShort() const {
    std::vector<std::string> names;
    for (const auto& [name, outcome] : outcomes_) {
      if (!outcome.cut_short.empty()) names.push_back(name);
    }
    return absl::StrJoin(names, ", ");
  }

  SupervisorLink& link_;
  const Plan& plan_;
  const RunOptions& options_;
  const std::function<void(const v1::RunScenarioResponse&)>& emit_;
  const std::string session_;
  const absl::Time begin_;
  const absl::Duration time_limit_;
  const ipc::Deadline deadline_;

  Outcomes outcomes_;
  // Those that were made to stop by TakeDown, or never started because of it.
  std::set<std::string> stopped_;
  std::string bad_end_;  // "NAME exited with 3": the first one
  bool taking_down_ = false;
  bool session_is_down_ = false;
  bool timed_out_ = false;
  bool cancelled_ = false;
};

}  // namespace

v1::Verdict RunScenario(
    SupervisorLink& link, const Plan& plan, const RunOptions& options,
    const std::function<void(const v1::RunScenarioResponse&)>& emit) {
  return ScenarioRun(link, plan, options, emit).Run();
}

}  // namespace parley::control
