#include "services/control/console.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::control {
namespace {

using ::testing::HasSubstr;

class ConsoleTest : public testing::Test {
 protected:
  explicit ConsoleTest(const ConsoleOptions& options = {})
      : console_(options, [this](absl::string_view text) {
          absl::StrAppend(&shown_, text);
        }) {
    v1::RunScenarioResponse event;
    event.mutable_started()->set_scenario("pipe");
    event.mutable_started()->set_seed(9);
    console_.Show(event);
  }

  void Print(const std::string& process, const std::string& data,
             v1::Output::Stream stream = v1::Output::STDOUT,
             uint64_t dropped = 0) {
    v1::RunScenarioResponse event;
    event.mutable_output()->set_process(process);
    event.mutable_output()->set_stream(stream);
    event.mutable_output()->set_data(data);
    event.mutable_output()->set_dropped(dropped);
    console_.Show(event);
  }
  void Exit(const std::string& process) {
    v1::RunScenarioResponse event;
    event.mutable_process()->set_name("sessions/s/processes/" + process);
    event.mutable_process()->set_state(v1::ProcessStatus::EXITED);
    console_.Show(event);
  }
  void Check(const std::string& name, v1::Check::Result result,
             const std::string& detail) {
    v1::RunScenarioResponse event;
    event.mutable_check()->set_name(name);
    event.mutable_check()->set_result(result);
    event.mutable_check()->set_detail(detail);
    console_.Show(event);
  }
  void Verdict(v1::Verdict::Result result, const std::string& detail = "") {
    v1::RunScenarioResponse event;
    event.mutable_verdict()->set_result(result);
    event.mutable_verdict()->set_detail(detail);
    event.mutable_verdict()->mutable_duration()->set_nanos(30'000'000);
    console_.Show(event);
  }

  std::string shown_;
  Console console_;
};

TEST_F(ConsoleTest, LinesNeverMix) {
  Print("a", "one\ntw");
  Print("b", "bee\n", v1::Output::STDERR);
  Print("a", "o\n");
  EXPECT_EQ(shown_, "a | one\nb ! bee\na | two\n");
}

TEST_F(ConsoleTest, AnUnfinishedLineIsShownWhenItsProcessEnds) {
  Print("a", "no newline");
  Print("b", "other");
  Exit("a");
  EXPECT_EQ(shown_, "a | no newline\n");
  Verdict(v1::Verdict::PASSED);
  EXPECT_THAT(shown_, HasSubstr("b | other\n"));
}

TEST_F(ConsoleTest, SaysHowMuchWasDropped) {
  Print("a", "rest\n", v1::Output::STDOUT, 12);
  EXPECT_EQ(shown_, "a | [12 bytes dropped]\na | rest\n");
}

TEST_F(ConsoleTest, PassedIsOneLine) {
  Check("a exit", v1::Check::PASSED, "");
  Check("a stdout", v1::Check::PASSED, "");
  Verdict(v1::Verdict::PASSED);
  EXPECT_EQ(shown_, "PASSED pipe (2 checks, 0.03 s)\n");
}

TEST_F(ConsoleTest, FailedNamesEachCheckAndTheSeed) {
  Check("a exit", v1::Check::PASSED, "");
  Check("a stdout", v1::Check::FAILED, "expected x\nexpected y");
  Check("b exit", v1::Check::INCONCLUSIVE, "stopped");
  Verdict(v1::Verdict::FAILED);
  EXPECT_EQ(shown_,
            "FAILED pipe (1 of 3 checks failed, 0.03 s, seed 9)\n"
            "  a stdout: expected x\n    expected y\n"
            "  b exit (inconclusive): stopped\n");
}

TEST_F(ConsoleTest, SaysWhyThereIsNoVerdictOfChecks) {
  Verdict(v1::Verdict::INFRASTRUCTURE, "the supervisor has died");
  EXPECT_EQ(shown_,
            "INFRASTRUCTURE ERROR pipe (0 checks, 0.03 s, seed 9)\n"
            "  the supervisor has died\n");
}

class JsonConsoleTest : public ConsoleTest {
 protected:
  JsonConsoleTest() : ConsoleTest({.json = true}) {}
};

TEST_F(JsonConsoleTest, ALineForEachEvent) {
  Print("a", "x\n");
  EXPECT_EQ(shown_,
            "{\"started\":{\"scenario\":\"pipe\",\"seed\":\"9\"}}\n"
            "{\"output\":{\"process\":\"a\",\"stream\":\"STDOUT\",\"data\":"
            "\"eAo=\"}}\n");
}

class ColorConsoleTest : public ConsoleTest {
 protected:
  ColorConsoleTest() : ConsoleTest({.color = true}) {}
};

TEST_F(ColorConsoleTest, Colors) {
  Print("a", "x\n");
  EXPECT_EQ(shown_, "\033[36ma |\033[0m x\n");
}

}  // namespace
}  // namespace parley::control
