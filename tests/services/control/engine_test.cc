// The engine against a supervisor that says what each test wants to hear. What
// a real one does is in run_test and in //tests/scenarios.
#include "services/control/engine.h"

#include <deque>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::control {
namespace {

namespace sup = supervisor::v1;
using ::testing::HasSubstr;

class FakeSupervisor : public SupervisorLink {
 public:
  absl::StatusOr<sup::Response> Call(sup::ClientMessage request,
                                     absl::Duration) override {
    calls.push_back(request.request_case());
    if (request.has_up() && !up_status.ok()) return up_status;
    if (request.has_down()) {
      for (const sup::ServerMessage& message : at_down) {
        pushes.push_back(message);
      }
      sup::ServerMessage down;
      down.mutable_event()->mutable_session_down()->set_name("s");
      pushes.push_back(std::move(down));
    }
    return sup::Response();
  }
  absl::StatusOr<sup::ServerMessage> Next(absl::Duration timeout) override {
    if (pushes.empty()) {
      if (!next_status.ok()) return next_status;
      absl::SleepFor(std::min(timeout, absl::Milliseconds(1)));
      return absl::DeadlineExceededError("nothing");
    }
    sup::ServerMessage message = pushes.front();
    pushes.pop_front();
    return message;
  }

  void State(const std::string& process, sup::ProcessState state) {
    pushes.push_back(StateMessage(process, state));
  }
  void Exited(const std::string& process, int code) {
    sup::ServerMessage message = StateMessage(process, sup::EXITED);
    message.mutable_event()->mutable_process()->mutable_exit()->set_code(code);
    pushes.push_back(std::move(message));
  }
  void Printed(const std::string& process, const std::string& data,
               uint64_t dropped = 0) {
    sup::ServerMessage message;
    message.mutable_log()->set_session("s");
    message.mutable_log()->set_process(process);
    message.mutable_log()->set_stream(sup::STDOUT);
    message.mutable_log()->set_data(data);
    message.mutable_log()->set_dropped(dropped);
    pushes.push_back(std::move(message));
  }
  // When the session is taken down: stopped by SIGTERM.
  void StopsAtDown(const std::string& process) {
    at_down.push_back(StateMessage(process, sup::STOPPING));
    at_down.push_back(StateMessage(process, sup::EXITED));
    at_down.back()
        .mutable_event()
        ->mutable_process()
        ->mutable_exit()
        ->set_signal(15);
  }

  static sup::ServerMessage StateMessage(const std::string& process,
                                         sup::ProcessState state) {
    sup::ServerMessage message;
    sup::ProcessInfo& info = *message.mutable_event()->mutable_process();
    info.set_session("s");
    info.set_name(process);
    info.set_state(state);
    if (state == sup::EXITED) info.mutable_exit()->set_code(0);
    return message;
  }

  std::vector<sup::ClientMessage::RequestCase> calls;
  std::deque<sup::ServerMessage> pushes;
  std::vector<sup::ServerMessage> at_down;
  absl::Status up_status;
  absl::Status next_status;  // once nothing is left to push
};

class EngineTest : public testing::Test {
 protected:
  void Run(absl::string_view text) {
    const absl::StatusOr<ParsedScenario> parsed = ParseScenario(text, "t.x");
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    const BinaryResolver binaries({});
    const absl::StatusOr<Plan> plan =
        MakePlan(*parsed, {.binaries = &binaries});
    ASSERT_TRUE(plan.ok()) << plan.status();
    options_.session = "s";
    verdict_ = RunScenario(supervisor_, *plan, options_,
                           [this](const v1::RunScenarioResponse& event) {
                             events_.push_back(event);
                           });
    ASSERT_FALSE(events_.empty());
    EXPECT_TRUE(events_.front().has_started());
    EXPECT_TRUE(events_.back().has_verdict());
  }
  // "a exit PASSED", …
  std::vector<std::string> Checks() const {
    std::vector<std::string> checks;
    for (const v1::RunScenarioResponse& event : events_) {
      if (!event.has_check()) continue;
      checks.push_back(
          absl::StrCat(event.check().name(), " ",
                       v1::Check::Result_Name(event.check().result())));
    }
    return checks;
  }
  std::string DetailOf(const std::string& name) const {
    for (const v1::RunScenarioResponse& event : events_) {
      if (event.check().name() == name) return event.check().detail();
    }
    return "";
  }

  FakeSupervisor supervisor_;
  RunOptions options_;
  v1::Verdict verdict_;
  std::vector<v1::RunScenarioResponse> events_;
};

constexpr char kTwo[] =
    "process { name: \"a\" binary: \"/bin/true\" }\n"
    "process { name: \"b\" binary: \"/bin/true\" ok_exit: 0 ok_exit: 7 }\n"
    "expect { process { name: \"a\" stdout { equals: \"hi\" } } }\n";

TEST_F(EngineTest, PassesWhenAllEndedWell) {
  supervisor_.State("a", sup::READY);
  supervisor_.Printed("a", "h");
  supervisor_.Printed("a", "i");
  supervisor_.Exited("a", 0);
  supervisor_.Exited("b", 7);
  Run(kTwo);
  EXPECT_EQ(verdict_.result(), v1::Verdict::PASSED);
  EXPECT_THAT(Checks(), testing::ElementsAre("a exit PASSED", "b exit PASSED",
                                             "a stdout PASSED"));
  EXPECT_THAT(supervisor_.calls,
              testing::ElementsAre(
                  sup::ClientMessage::kList, sup::ClientMessage::kSubscribe,
                  sup::ClientMessage::kUp, sup::ClientMessage::kDown));
}

TEST_F(EngineTest, ABadEndStopsTheOthersWhichThenProveNothing) {
  supervisor_.Exited("b", 3);
  supervisor_.StopsAtDown("a");
  Run(kTwo);
  EXPECT_EQ(verdict_.result(), v1::Verdict::FAILED);
  EXPECT_EQ(verdict_.detail(), "b exit");
  EXPECT_THAT(Checks(),
              testing::ElementsAre("a exit INCONCLUSIVE", "b exit FAILED",
                                   "a stdout INCONCLUSIVE"));
  EXPECT_EQ(DetailOf("b exit"),
            "expected exit code 0 or 7, seen: exited with 3");
  EXPECT_EQ(DetailOf("a exit"),
            "expected exit code 0, but it was stopped because b exited with 3");
}

TEST_F(EngineTest, WhatEndedByItselfMeanwhileCounts) {
  supervisor_.Exited("b", 3);
  supervisor_.at_down.push_back(FakeSupervisor::StateMessage("a", sup::EXITED));
  Run(kTwo);
  EXPECT_THAT(Checks(), testing::Contains("a exit PASSED"));
}

TEST_F(EngineTest, AnExpectedDeathIsNotABadEnd) {
  sup::ServerMessage killed = FakeSupervisor::StateMessage("a", sup::EXITED);
  killed.mutable_event()->mutable_process()->mutable_exit()->set_signal(9);
  supervisor_.pushes.push_back(killed);
  supervisor_.Exited("b", 0);
  Run("process { name: \"a\" binary: \"/bin/true\" }\n"
      "process { name: \"b\" binary: \"/bin/true\" }\n"
      "expect { process { name: \"a\" exit { signal: \"SIGKILL\" } } }\n");
  EXPECT_EQ(verdict_.result(), v1::Verdict::PASSED) << verdict_.detail();
}

TEST_F(EngineTest, ADeathThatWasNotToBeShowsHow) {
  sup::ServerMessage killed = FakeSupervisor::StateMessage("a", sup::EXITED);
  killed.mutable_event()->mutable_process()->mutable_exit()->set_signal(11);
  supervisor_.pushes.push_back(killed);
  Run("process { name: \"a\" binary: \"/bin/true\" }\n"
      "expect { process { name: \"a\" exit { code: 0 } } }\n");
  EXPECT_EQ(verdict_.result(), v1::Verdict::FAILED);
  EXPECT_EQ(DetailOf("a exit"),
            "expected exit code 0, seen: killed by SIGSEGV");
}

TEST_F(EngineTest, AnEndThatNobodySawProvesNothing) {
  sup::ServerMessage lost = FakeSupervisor::StateMessage("a", sup::EXITED);
  lost.mutable_event()->mutable_process()->clear_exit();
  supervisor_.pushes.push_back(lost);
  Run("process { name: \"a\" binary: \"/bin/true\" }\n");
  EXPECT_EQ(verdict_.result(), v1::Verdict::INCONCLUSIVE);
}

TEST_F(EngineTest, DroppedOutputProvesNothing) {
  supervisor_.Printed("a", "hi", 5);
  supervisor_.Exited("a", 0);
  supervisor_.Exited("b", 0);
  Run(kTwo);
  EXPECT_EQ(verdict_.result(), v1::Verdict::INCONCLUSIVE);
  EXPECT_THAT(DetailOf("a stdout"), HasSubstr("5 bytes"));
}

TEST_F(EngineTest, TheTimeLimitStopsAllAndIsTheVerdict) {
  supervisor_.Exited("a", 0);
  supervisor_.StopsAtDown("b");
  options_.time_limit = absl::Milliseconds(20);
  Run(kTwo);
  EXPECT_EQ(verdict_.result(), v1::Verdict::TIME_LIMIT);
  EXPECT_EQ(verdict_.detail(),
            "the time limit of 20ms passed while these "
            "ran: b");
}

TEST_F(EngineTest, ACancelledRunIsTakenDownAndInconclusive) {
  supervisor_.StopsAtDown("a");
  supervisor_.StopsAtDown("b");
  options_.cancelled = [] { return true; };
  Run(kTwo);
  EXPECT_EQ(verdict_.result(), v1::Verdict::INCONCLUSIVE);
  EXPECT_EQ(verdict_.detail(), "the run was cancelled");
  EXPECT_EQ(supervisor_.calls.back(), sup::ClientMessage::kDown);
}

TEST_F(EngineTest, ADeadSupervisorIsNobodysFailureButOurs) {
  supervisor_.Exited("a", 0);
  supervisor_.next_status = absl::UnavailableError("closed");
  Run(kTwo);
  EXPECT_EQ(verdict_.result(), v1::Verdict::INFRASTRUCTURE);
  EXPECT_EQ(verdict_.detail(), "the supervisor has died: closed");
  EXPECT_THAT(Checks(), testing::IsEmpty());
}

TEST_F(EngineTest, ARefusedSessionIsOursToo) {
  supervisor_.up_status = absl::ResourceExhaustedError("no memory");
  Run(kTwo);
  EXPECT_EQ(verdict_.result(), v1::Verdict::INFRASTRUCTURE);
  EXPECT_EQ(verdict_.detail(), "start session s: no memory");
}

TEST_F(EngineTest, WhatCouldNotBeStartedFails) {
  sup::ServerMessage failed = FakeSupervisor::StateMessage("a", sup::FAILED);
  failed.mutable_event()->mutable_process()->set_error("no such file");
  supervisor_.pushes.push_back(failed);
  supervisor_.StopsAtDown("b");
  Run(kTwo);
  EXPECT_EQ(verdict_.result(), v1::Verdict::FAILED);
  EXPECT_THAT(DetailOf("a exit"),
              HasSubstr("seen: could not be started: no such file"));
}

}  // namespace
}  // namespace parley::control
