#include "services/control/plan.h"

#include <ostream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::control {
namespace {

using ::testing::ElementsAre;

absl::StatusOr<Plan> PlanText(absl::string_view text,
                              absl::string_view file = "bad.textproto") {
  absl::StatusOr<ParsedScenario> parsed = ParseScenario(text, file);
  if (!parsed.ok()) return parsed.status();
  const BinaryResolver binaries({"/nowhere"});
  return MakePlan(
      *parsed,
      {.binaries = &binaries, .seed = 42, .environment = {{"PATH", "/bin"}}});
}

// ---- What is wrong, and how it is said. ----

struct BadScenario {
  const char* name;
  const char* text;
  const char* error;  // the beginning of one of its lines
};

void PrintTo(const BadScenario& bad, std::ostream* stream) {
  *stream << bad.name;
}

class BadScenarioTest : public testing::TestWithParam<BadScenario> {};

TEST_P(BadScenarioTest, IsRefusedByLineAndField) {
  const absl::Status status = PlanText(GetParam().text).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(absl::StrCat("\n", std::string(status.message())),
              testing::HasSubstr(absl::StrCat("\n", GetParam().error)));
}

// Every process is /bin/true; the wrong line is often the second.
const BadScenario kBadScenarios[] = {
    {"Name", "name: \"Pipe\"\nprocess { name: \"a\" binary: \"/bin/true\" }",
     "bad.textproto:1:1: name: \"Pipe\" is no name; write 1 to 64 of a-z, 0-9, "
     "_ and - instead"},
    {"NoProcess", "name: \"empty\"",
     "bad.textproto:1:1: process: there is none; write at least one"},
    {"TimeLimit",
     "process { name: \"a\" binary: \"/bin/true\" }\ntime_limit { seconds: -1 "
     "}",
     "bad.textproto:2:1: time_limit: is negative (-1s); write"},
    {"ChannelTwice",
     "process { name: \"a\" binary: \"/bin/true\" }\n"
     "channel { name: \"c\" pipe {} }\n"
     "channel { name: \"c\" pipe {} }",
     "bad.textproto:3:11: channel[1].name: there is already a channel \"c\"; "
     "write another name"},
    {"ChannelKind",
     "process { name: \"a\" binary: \"/bin/true\" }\nchannel { name: \"c\" }",
     "bad.textproto:2:1: channel[0]: channel \"c\" has no kind; write `pipe "
     "{}`"},
    {"ShmBytes",
     "process { name: \"a\" binary: \"/bin/true\" }\n"
     "channel { name: \"c\" shm { bytes: 0 } }",
     "bad.textproto:2:27: channel[0].shm.bytes: is zero; write how many bytes"},
    {"ProcessTwice",
     "process { name: \"a\" binary: \"/bin/true\" }\n"
     "process { name: \"a\" binary: \"/bin/true\" }",
     "bad.textproto:2:11: process[1].name: there is already a process \"a\""},
    {"ProcessTwiceByReplicas",
     "process { name: \"a\" binary: \"/bin/true\" replicas: 2 }\n"
     "process { name: \"a-1\" binary: \"/bin/true\" }",
     "bad.textproto:2:11: process[1].name: there is already a process "
     "\"a-1\""},
    {"NoBinary", "process { name: \"a\" }",
     "bad.textproto:1:1: process[0].binary: is not set; write a label"},
    {"UnknownLabel", "process { name: \"a\" binary: \"//services/sendr\" }",
     "bad.textproto:1:21: process[0].binary: there is no binary "
     "//services/sendr; add \"//services/sendr\" to `binaries` of the Bazel "
     "target that runs the scenario, or write the path of a program instead "
     "(looked for /nowhere/services/sendr/sendr)"},
    {"UnknownPath", "process { name: \"a\" binary: \"/no/such\" }",
     "bad.textproto:1:21: process[0].binary: /no/such does not exist; write a "
     "label"},
    {"NotExecutable", "process { name: \"a\" binary: \"/etc/passwd\" }",
     "bad.textproto:1:21: process[0].binary: /etc/passwd is not executable"},
    {"UnknownChannel",
     "channel { name: \"messages\" pipe {} }\n"
     "process { name: \"a\" binary: \"/bin/true\"\n"
     "  grant { channel: \"mesages\" role: READ } }",
     "bad.textproto:3:11: process[0].grant[0].channel: there is no channel "
     "\"mesages\"; write \"messages\" instead"},
    {"NoChannelsAtAll",
     "process { name: \"a\" binary: \"/bin/true\"\n"
     "  grant { channel: \"c\" role: READ } }",
     "bad.textproto:2:11: process[0].grant[0].channel: there is no channel "
     "\"c\"; there are none"},
    {"NoRole",
     "channel { name: \"c\" mqueue {} }\n"
     "process { name: \"a\" binary: \"/bin/true\"\n"
     "  grant { channel: \"c\" } }",
     "bad.textproto:3:3: process[0].grant[0].role: is not set; write READ, "
     "WRITE or READ_WRITE"},
    {"PipeReadWrite",
     "channel { name: \"c\" pipe {} }\n"
     "process { name: \"a\" binary: \"/bin/true\"\n"
     "  grant { channel: \"c\" role: READ_WRITE } }",
     "bad.textproto:3:24: process[0].grant[0].role: a pipe has one direction; "
     "write READ or WRITE instead, or make \"c\" one with `pipe { duplex: true "
     "}`"},
    {"DuplexRead",
     "channel { name: \"c\" pipe { duplex: true } }\n"
     "process { name: \"a\" binary: \"/bin/true\"\n"
     "  grant { channel: \"c\" role: READ } }",
     "bad.textproto:3:24: process[0].grant[0].role: both ends of a duplex pipe "
     "send and receive; write READ_WRITE instead"},
    {"TwoReaders",
     "channel { name: \"c\" pipe {} }\n"
     "process { name: \"a\" binary: \"/bin/true\" replicas: 2\n"
     "  grant { channel: \"c\" role: READ } }",
     "bad.textproto:3:3: process[0].grant[0]: \"a-1\" is one too many: pipe "
     "\"c\" has 1 reader, held by \"a-0\"; write a channel of its own for "
     "each, or use an mqueue"},
    {"ThreeEnds",
     "channel { name: \"c\" pipe { duplex: true } }\n"
     "process { name: \"a\" binary: \"/bin/true\" replicas: 3\n"
     "  grant { channel: \"c\" role: READ_WRITE } }",
     "bad.textproto:3:3: process[0].grant[0]: \"a-2\" is one too many: pipe "
     "\"c\" has 2 ends, held by \"a-0\" and \"a-1\""},
    {"SameAs",
     "channel { name: \"c\" shm { bytes: 8 } }\n"
     "channel { name: \"d\" shm { bytes: 8 } }\n"
     "process { name: \"a\" binary: \"/bin/true\"\n"
     "  grant { channel: \"c\" role: READ }\n"
     "  grant { channel: \"d\" role: READ as: \"c\" } }",
     "bad.textproto:5:35: process[0].grant[1].as: process \"a\" already has a "
     "grant called \"c\"; write another `as`"},
    {"DependsOnUnknown",
     "process { name: \"server\" binary: \"/bin/true\" }\n"
     "process { name: \"b\" binary: \"/bin/true\"\n"
     "  depends_on { process: \"servr\" state: STARTED } }",
     "bad.textproto:3:16: process[1].depends_on[0].process: there is no "
     "process \"servr\"; write \"server\" instead"},
    {"DependsOnItself",
     "process { name: \"b\" binary: \"/bin/true\"\n"
     "  depends_on { process: \"b\" state: STARTED } }",
     "bad.textproto:2:16: process[0].depends_on[0].process: process \"b\" "
     "depends on itself; remove this"},
    {"Cycle",
     "process { name: \"a\" binary: \"/bin/true\"\n"
     "  depends_on { process: \"b\" state: STARTED } }\n"
     "process { name: \"b\" binary: \"/bin/true\"\n"
     "  depends_on { process: \"c\" state: STARTED } }\n"
     "process { name: \"c\" binary: \"/bin/true\"\n"
     "  depends_on { process: \"a\" state: STARTED } }",
     "bad.textproto:2:16: process[0].depends_on[0].process: none of these can "
     "ever start: a -> b -> c -> a; remove one of these dependencies"},
    {"ReadyOfWhatNeverIs",
     "process { name: \"a\" binary: \"/bin/true\" }\n"
     "process { name: \"b\" binary: \"/bin/true\"\n"
     "  depends_on { process: \"a\" state: READY } }",
     "bad.textproto:3:29: process[1].depends_on[0].state: process \"a\" never "
     "says that it is ready; write `ready { notify: true }` in it, or STARTED "
     "here instead"},
    {"DependsOnState",
     "process { name: \"a\" binary: \"/bin/true\" }\n"
     "process { name: \"b\" binary: \"/bin/true\"\n"
     "  depends_on { process: \"a\" } }",
     "bad.textproto:3:3: process[1].depends_on[0].state: is not set; write "
     "STARTED, READY or EXITED_OK"},
    {"ReadyHow", "process { name: \"a\" binary: \"/bin/true\"\n  ready {} }",
     "bad.textproto:2:3: process[0].ready: says not how readiness shows; write "
     "`notify: true`"},
    {"ReadyTimeout",
     "process { name: \"a\" binary: \"/bin/true\"\n"
     "  ready { notify: true timeout { seconds: 0 } } }",
     "bad.textproto:2:24: process[0].ready.timeout: is zero"},
    {"StopSignal",
     "process { name: \"a\" binary: \"/bin/true\"\n"
     "  stop { signal: \"SIGTREM\" } }",
     "bad.textproto:2:10: process[0].stop.signal: there is no signal "
     "\"SIGTREM\"; write \"SIGTERM\" instead"},
    {"StopGrace",
     "process { name: \"a\" binary: \"/bin/true\"\n"
     "  stop { grace { nanos: -5 } } }",
     "bad.textproto:2:10: process[0].stop.grace: is negative (-5ns)"},
    {"ReservedVariable",
     "process { name: \"a\" binary: \"/bin/true\"\n"
     "  env { key: \"LISTEN_FDS\" value: \"1\" } }",
     "bad.textproto:2:3: process[0].env: LISTEN_FDS is set by the supervisor"},
    {"OkExit", "process { name: \"a\" binary: \"/bin/true\"\n  ok_exit: 256 }",
     "bad.textproto:2:3: process[0].ok_exit[0]: no process exits with 256"},
    {"Replicas",
     "process { name: \"a\" binary: \"/bin/true\"\n  replicas: 4000000000 }",
     "bad.textproto:2:3: process[0].replicas: 4000000000 are too many; write "
     "1000 at most"},
    {"ExpectOfUnknown",
     "process { name: \"a\" binary: \"/bin/true\" replicas: 2 }\n"
     "expect { process { name: \"a-2\" exit { code: 0 } } }",
     "bad.textproto:2:20: expect[0].process.name: there is no process "
     "\"a-2\"; write \"a-0\" instead (there are: a, a-0, a-1)"},
    {"ExpectOfNothing",
     "process { name: \"a\" binary: \"/bin/true\" }\nexpect {}",
     "bad.textproto:2:1: expect[0]: expects nothing; write `process {"},
    {"ExpectNothing",
     "process { name: \"a\" binary: \"/bin/true\" }\n"
     "expect { process { name: \"a\" } }",
     "bad.textproto:2:10: expect[0].process: expects nothing; write `exit`"},
    {"ExpectExit",
     "process { name: \"a\" binary: \"/bin/true\" }\n"
     "expect { process { name: \"a\" exit {} } }",
     "bad.textproto:2:30: expect[0].process.exit: expects nothing"},
    {"ExpectExitSignal",
     "process { name: \"a\" binary: \"/bin/true\" }\n"
     "expect { process { name: \"a\" exit { signal: \"SIGKIL\" } } }",
     "bad.textproto:2:37: expect[0].process.exit.signal: there is no signal "
     "\"SIGKIL\"; write \"SIGKILL\" instead"},
    {"ExpectText",
     "process { name: \"a\" binary: \"/bin/true\" }\n"
     "expect { process { name: \"a\" stdout {} } }",
     "bad.textproto:2:30: expect[0].process.stdout: expects nothing"},
    {"ExpectRegex",
     "process { name: \"a\" binary: \"/bin/true\" }\n"
     "expect { process { name: \"a\" stderr { matches: \"a(\" } } }",
     "bad.textproto:2:39: expect[0].process.stderr.matches[0]: \"a(\" is no "
     "regular expression (missing ): a(); write one of RE2's syntax"},
};

INSTANTIATE_TEST_SUITE_P(All, BadScenarioTest, testing::ValuesIn(kBadScenarios),
                         [](const auto& info) { return info.param.name; });

TEST(PlanTest, FindsEverythingThatIsWrongAtOnce) {
  const absl::Status status = PlanText(
                                  "channel { name: \"c\" }\n"
                                  "process { name: \"A\" binary: \"/no/such\"\n"
                                  "  grant { channel: \"d\" role: READ } }\n")
                                  .status();
  EXPECT_THAT(
      std::string(status.message()),
      testing::MatchesRegex("bad.textproto:1:1: channel.0.: .*\n"
                            "bad.textproto:2:11: process.0..name: .*\n"
                            "bad.textproto:2:21: process.0..binary: .*\n"
                            "bad.textproto:3:11: process.0..grant.*"));
}

// ---- What is right, and what comes of it. ----

TEST(PlanTest, FillsInDefaults) {
  const absl::StatusOr<Plan> plan = PlanText(
      "channel { name: \"c\" mqueue { slots: 8 message_bytes: 100 } }\n"
      "process { name: \"a\" binary: \"/bin/true\" args: \"x\"\n"
      "  env { key: \"K\" value: \"V\" } ready { notify: true }\n"
      "  grant { channel: \"c\" role: WRITE } }",
      "dir/some-name.textproto");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->scenario.name(), "some-name");
  EXPECT_EQ(plan->scenario.seed(), 42);
  EXPECT_EQ(plan->scenario.time_limit().seconds(), 60);
  EXPECT_EQ(plan->shared_memory_bytes, 8 * 128);
  EXPECT_EQ(plan->file_descriptors, 5);

  ASSERT_EQ(plan->session.processes_size(), 1);
  const supervisor::v1::ProcessSpec& process = plan->session.processes(0);
  EXPECT_EQ(process.path(), "/bin/true");
  EXPECT_THAT(process.args(), ElementsAre("x"));
  EXPECT_EQ(process.env().size(), 4);
  EXPECT_EQ(process.env().at("PATH"), "/bin");
  EXPECT_EQ(process.env().at("PARLEY_SEED"), "42");
  EXPECT_EQ(process.env().at("PARLEY_PROCESS"), "a");
  EXPECT_EQ(process.env().at("K"), "V");
  EXPECT_EQ(process.grants(0).as(), "c");
  EXPECT_EQ(process.grants(0).role(), supervisor::v1::WRITE);
  EXPECT_EQ(process.stop_signal(), 15);
  EXPECT_EQ(process.stop_grace().seconds(), 5);
  EXPECT_EQ(process.ready_timeout().seconds(), 10);
}

TEST(PlanTest, SpellsOutReplicasAndWhoWaitsForThem) {
  const absl::StatusOr<Plan> plan = PlanText(
      "process { name: \"w\" binary: \"/bin/true\" replicas: 2 }\n"
      "process { name: \"b\" binary: \"/bin/true\"\n"
      "  depends_on { process: \"w\" state: EXITED_OK } }\n"
      "process { name: \"c\" binary: \"/bin/true\"\n"
      "  depends_on { process: \"w-1\" state: STARTED }\n"
      "  depends_on { process: \"b\" state: STARTED } }\n"
      "expect { process { name: \"w\" exit { code: 0 } } }\n");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->waves, ElementsAre(ElementsAre("w-0", "w-1"),
                                       ElementsAre("b"), ElementsAre("c")));
  ASSERT_EQ(plan->session.processes_size(), 4);
  EXPECT_EQ(plan->session.processes(1).env().at("PARLEY_PROCESS"), "w-1");
  EXPECT_EQ(plan->session.processes(2).dependencies_size(), 2);
  EXPECT_EQ(plan->session.processes(3).dependencies(0).process(), "w-1");
  ASSERT_EQ(plan->scenario.expect_size(), 2);
  EXPECT_EQ(plan->scenario.expect(1).process().name(), "w-1");
}

TEST(PlanTest, OneReplicaIsNumberedToo) {
  const absl::StatusOr<Plan> plan =
      PlanText("process { name: \"w\" binary: \"/bin/true\" replicas: 1 }");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->session.processes(0).name(), "w-0");
}

TEST(PlanTest, RelativePathsStartFromTheScenario) {
  const absl::StatusOr<Plan> plan = PlanText(
      "process { name: \"a\" binary: \"true\" "
      "working_directory: \"sub\" }",
      "/bin/x.textproto");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->session.processes(0).path(), "/bin/true");
  EXPECT_EQ(plan->session.processes(0).working_directory(), "/bin/sub");
}

}  // namespace
}  // namespace parley::control
