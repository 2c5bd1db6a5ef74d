// `parley run` as its users meet it: exit codes, output, reports, and what is
// left of it when somebody is killed.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/services/control/parley_process.h"

namespace parley::control {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

constexpr char kGood[] =
    "process { name: \"a\" binary: \"//tests/testcases:prints\"\n"
    "          args: \"one\\ntwo\" args: \"oops\\n\" }\n"
    "expect { process { name: \"a\" stdout { equals: \"one\\ntwo\" } } }\n";
constexpr char kBad[] =
    "process { name: \"a\" binary: \"//tests/testcases:prints\" args: \"x\" }\n"
    "process { name: \"b\" binary: \"//tests/testcases:exits_with\" args: "
    "\"3\" "
    "}\n"
    "expect { process { name: \"b\" exit { code: 4 } } }\n"
    "expect { process { name: \"a\" stdout { contains: \"y\" } } }\n";
constexpr char kEndless[] =
    "process { name: \"a\" binary: \"//tests/testcases:sleeps_forever\"\n"
    "          args: \"sleeping\" }\n";
constexpr char kGrandchild[] =
    "process { name: \"a\" binary: \"//tests/testcases:spawns_grandchild\" }\n";

TEST(RunTest, PassedIs0) {
  ParleyProcess parley({"run", WriteTempFile("good.textproto", kGood)});
  EXPECT_EQ(parley.Join(), 0) << parley.err();
  EXPECT_THAT(parley.out(), HasSubstr("a | one\n"));
  EXPECT_THAT(parley.out(), HasSubstr("a | two\n"));
  EXPECT_THAT(parley.out(), HasSubstr("a ! oops\n"));
  EXPECT_THAT(parley.out(), HasSubstr("PASSED good (2 checks, "));
}

TEST(RunTest, AFailedExpectationIs1) {
  ParleyProcess parley({"run", WriteTempFile("bad.textproto", kBad)});
  EXPECT_EQ(parley.Join(), 1) << parley.err();
  EXPECT_THAT(parley.out(), HasSubstr("FAILED bad (2 of 3 checks failed"));
  EXPECT_THAT(parley.out(),
              HasSubstr("b exit: expected exit code 4, seen: exited with 3"));
  EXPECT_THAT(parley.out(),
              HasSubstr("a stdout: expected to contain \"y\", seen \"x\""));
}

TEST(RunTest, BadArgumentsAndFilesAre64) {
  EXPECT_EQ(ParleyProcess({"run"}).Join(), 64);
  EXPECT_EQ(ParleyProcess({"fly"}).Join(), 64);
  EXPECT_EQ(ParleyProcess({"run", "/no/such.textproto"}).Join(), 64);
  EXPECT_EQ(ParleyProcess({"run", "--verdict=good", "x"}).Join(), 64);
  ParleyProcess parley(
      {"run", WriteTempFile("typo.textproto", "proces { name: \"a\" }")});
  EXPECT_EQ(parley.Join(), 64);
  EXPECT_THAT(parley.err(),
              HasSubstr("typo.textproto:1:1: Scenario.proces: there is no such "
                        "field; write \"process\" instead"));
}

TEST(RunTest, TheTimeLimitIs124) {
  ParleyProcess parley(
      {"run",
       WriteTempFile("endless.textproto",
                     absl::StrCat(kEndless, "time_limit { nanos: 1 }"))});
  EXPECT_EQ(parley.Join(), 124) << parley.err();
  EXPECT_THAT(parley.out(), HasSubstr("TIME LIMIT endless"));
}

TEST(RunTest, AnAbsentSupervisorIs64AndABrokenOneIs3) {
  const std::string file = WriteTempFile("good.textproto", kGood);
  ParleyProcess absent({"run", "--supervisor=/no/such", file});
  EXPECT_EQ(absent.Join(), 64);
  EXPECT_THAT(absent.err(), HasSubstr("name it by --supervisor"));
  // An infrastructure error is no failure that was expected.
  ParleyProcess broken(
      {"run", "--supervisor=/bin/false", "--verdict=failed", file});
  EXPECT_EQ(broken.Join(), 3);
}

TEST(RunTest, TheWorstOfSeveralCounts) {
  const std::string good = WriteTempFile("good.textproto", kGood);
  const std::string bad = WriteTempFile("bad.textproto", kBad);
  ParleyProcess parley({"run", good, bad, good});
  EXPECT_EQ(parley.Join(), 1);
  EXPECT_THAT(parley.out(), MatchesRegex("(.|\n)*PASSED good(.|\n)*FAILED "
                                         "bad(.|\n)*PASSED good(.|\n)*"));
}

TEST(RunTest, AnExpectedVerdictIs0AndAnotherIsNot) {
  const std::string good = WriteTempFile("good.textproto", kGood);
  const std::string bad = WriteTempFile("bad.textproto", kBad);
  const std::string invalid = WriteTempFile("invalid.textproto", "x");
  EXPECT_EQ(ParleyProcess({"run", "--verdict=failed", bad}).Join(), 0);
  EXPECT_EQ(ParleyProcess({"run", "--verdict=failed", good}).Join(), 1);
  EXPECT_EQ(ParleyProcess({"run", "--verdict=invalid", invalid}).Join(), 0);
  EXPECT_EQ(ParleyProcess({"run", "--verdict=invalid", good}).Join(), 1);
}

TEST(RunTest, JsonIsALineForEachEvent) {
  ParleyProcess parley(
      {"run", "--json", WriteTempFile("good.textproto", kGood)});
  EXPECT_EQ(parley.Join(), 0);
  EXPECT_THAT(parley.out(), HasSubstr("\"started\":{\"scenario\":\"good\""));
  EXPECT_THAT(parley.out(), HasSubstr("\"verdict\":{\"result\":\"PASSED\""));
  EXPECT_THAT(parley.out(), Not(HasSubstr("PASSED good")));
}

TEST(RunTest, UnderBazelItHeedsTheTestEnvironment) {
  const std::string good = WriteTempFile("good.textproto", kGood);
  const std::string seed = WriteTempFile(
      "seed.textproto",
      "process { name: \"a\" binary: \"//tests/testcases:prints_env\"\n"
      "          args: \"PARLEY_SEED\" args: \"PARLEY_PROCESS\" }\n"
      "expect { process { name: \"a\" stdout {\n"
      "  equals: \"PARLEY_SEED=77\\nPARLEY_PROCESS=a\\n\" } } }\n");
  const std::string xml = WriteTempFile("test.xml", "");
  const std::string outputs = WriteTempFile("x", "") + ".outputs";
  const std::string status = WriteTempFile("x", "") + ".status";
  ParleyProcess parley({"run", good, seed},
                       {{"XML_OUTPUT_FILE", xml},
                        {"TEST_UNDECLARED_OUTPUTS_DIR", outputs},
                        {"TEST_RANDOM_SEED", "77"},
                        {"TEST_SHARD_STATUS_FILE", status},
                        {"TEST_TARGET", "//x:y"},
                        {"TESTBRIDGE_TEST_ONLY", "seed"}});
  EXPECT_EQ(parley.Join(), 0) << parley.out();
  EXPECT_THAT(parley.out(), Not(HasSubstr("good")));
  EXPECT_THAT(ReadFile(xml), HasSubstr("<testsuite name=\"seed\" tests=\"2\" "
                                       "failures=\"0\""));
  EXPECT_THAT(ReadFile(outputs + "/seed/a.stdout"),
              HasSubstr("PARLEY_SEED=77"));
  EXPECT_THAT(ReadFile(outputs + "/seed/history.jsonl"),
              HasSubstr("\"EXITED\""));
  EXPECT_EQ(access(status.c_str(), F_OK), 0);
}

TEST(RunTest, ShortlyBeforeBazelsTimeoutItStopsAndReports) {
  const std::string xml = WriteTempFile("test.xml", "");
  ParleyProcess parley({"run", WriteTempFile("endless.textproto", kEndless)},
                       {{"XML_OUTPUT_FILE", xml}, {"TEST_TIMEOUT", "1"}});
  EXPECT_EQ(parley.Join(), 124);
  EXPECT_THAT(ReadFile(xml), HasSubstr("<error message=\"time_limit: "));
}

TEST(RunTest, ASignalTakesAllDownInOrder) {
  const std::string file = WriteTempFile("endless.textproto", kEndless);
  for (const int signal : {SIGINT, SIGTERM}) {
    ParleyProcess parley({"run", "-v", file});
    EXPECT_EQ(parley.ReadUntil("sleeping"), "a | sleeping");
    ASSERT_TRUE(parley.process().Signal(signal).ok());
    EXPECT_EQ(parley.Join(), 128 + signal);
    EXPECT_THAT(parley.out(), HasSubstr("a * STOPPING"));
    EXPECT_THAT(parley.out(), HasSubstr("a * EXITED by signal 15"));
  }
}

TEST(RunTest, ASecondSignalDoesNotWaitForTheDeaf) {
  ParleyProcess parley(
      {"run", WriteTempFile("deaf.textproto",
                            "process { name: \"a\" "
                            "binary: \"//tests/testcases:ignores_sigterm\"\n"
                            "          stop { grace { seconds: 1000 } } }\n")});
  EXPECT_EQ(parley.ReadUntil("deaf"), "a | deaf");
  ASSERT_TRUE(parley.process().Interrupt().ok());
  // A signal that is pending already would merge with another of its kind.
  ASSERT_TRUE(parley.process().Terminate().ok());
  EXPECT_THAT(parley.Join(), testing::AnyOf(130, 143));
}

// Everything that was started becomes a child of this test, should its own
// parent end without it, so that waiting for children until there are none
// shows that nothing was left behind.
class NothingIsLeftTest : public testing::Test {
 protected:
  NothingIsLeftTest() { prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

  static pid_t GrandchildOf(ParleyProcess& parley) {
    const std::string line = parley.ReadUntil("grandchild");
    pid_t pid = 0;
    EXPECT_TRUE(absl::SimpleAtoi(line.substr(line.rfind(' ') + 1), &pid))
        << line;
    EXPECT_EQ(kill(pid, 0), 0);
    return pid;
  }
};

TEST_F(NothingIsLeftTest, WhenAllIsWell) {
  ParleyProcess parley(
      {"run",
       WriteTempFile("g.textproto",
                     absl::StrCat(kGrandchild,
                                  "process { name: \"b\" "
                                  "binary: \"//tests/testcases:exits_with\" "
                                  "args: \"1\" depends_on { process: \"a\" "
                                  "state: STARTED } }"))});
  EXPECT_EQ(parley.Join(), 1);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST_F(NothingIsLeftTest, WhenTheSupervisorIsKilled) {
  ParleyProcess parley({"run", WriteTempFile("g.textproto", kGrandchild)});
  const pid_t grandchild = GrandchildOf(parley);
  const std::vector<pid_t> supervisor = ChildrenOf(parley.process().pid());
  ASSERT_EQ(supervisor.size(), 1);
  ASSERT_EQ(kill(supervisor[0], SIGKILL), 0);
  EXPECT_EQ(parley.Join(), 3);
  EXPECT_THAT(parley.out(), HasSubstr("the supervisor has died"));
  EXPECT_EQ(kill(grandchild, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST_F(NothingIsLeftTest, WhenParleyItselfIsKilled) {
  ParleyProcess parley({"run", WriteTempFile("g.textproto", kGrandchild)});
  const pid_t grandchild = GrandchildOf(parley);
  ASSERT_TRUE(parley.process().Kill().ok());
  EXPECT_EQ(parley.Join(), -SIGKILL);
  // Ends only once the supervisor and all below it have.
  while (waitpid(-1, nullptr, 0) > 0) {
  }
  EXPECT_EQ(errno, ECHILD);
  EXPECT_EQ(kill(grandchild, 0), -1);
}

}  // namespace
}  // namespace parley::control
