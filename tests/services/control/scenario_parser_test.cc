#include "services/control/scenario_parser.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::control {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(absl::string_view text) {
  return std::string(ParseScenario(text, "x.textproto").status().message());
}

TEST(ScenarioParserTest, ReadsEveryPart) {
  const absl::StatusOr<ParsedScenario> parsed = ParseScenario(R"(
      name: "pipe" seed: 7 time_limit { seconds: 5 }
      channel { name: "messages" pipe { duplex: true } }
      process { name: "a" binary: "//a" env { key: "K" value: "V" }
                grant { channel: "messages" role: READ_WRITE as: "m" } }
      expect { process { name: "a" exit { code: 3 }
                         stdout { equals: "" matches: "x.*" } } }
  )",
                                                              "x.textproto");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->scenario.seed(), 7);
  EXPECT_TRUE(parsed->scenario.channel(0).pipe().duplex());
  EXPECT_EQ(parsed->scenario.process(0).env().at("K"), "V");
  EXPECT_EQ(parsed->scenario.expect(0).process().exit().code(), 3);
  EXPECT_TRUE(parsed->scenario.expect(0).process().stdout().has_equals());
}

TEST(ScenarioParserTest, NamesEveryUnknownFieldAndWhatWasMeant) {
  EXPECT_EQ(ErrorOf("nam: \"x\"\n"
                    "process {\n"
                    "  name: \"a\"\n"
                    "  binry: \"//a\"\n"
                    "}\n"),
            "x.textproto:1:1: Scenario.nam: there is no such field; write "
            "\"name\" instead (there are: channel, expect, name, process, "
            "seed, time_limit)\n"
            "x.textproto:4:3: Process.binry: there is no such field; write "
            "\"binary\" instead (there are: args, binary, depends_on, env, "
            "grant, limits, name, ok_exit, ready, replicas, stop, "
            "working_directory)");
}

TEST(ScenarioParserTest, NamesAnUnknownValue) {
  EXPECT_EQ(ErrorOf("process {\n"
                    "  grant { role: REED }\n"
                    "}\n"),
            "x.textproto:2:17: role: there is no value REED; write \"READ\" "
            "instead (there are: READ, READ_WRITE, WRITE)");
}

TEST(ScenarioParserTest, SaysWhereTheSyntaxIsBroken) {
  EXPECT_THAT(ErrorOf("process {\n  name: }\n"),
              HasSubstr("x.textproto:2:9: syntax: Expected string"));
  EXPECT_THAT(ErrorOf("name: \"a\"\nname: \"b\"\n"),
              HasSubstr("x.textproto:2:5: syntax: Non-repeated field \"name\" "
                        "is specified multiple times; write it once"));
  EXPECT_THAT(ErrorOf("seed: 99999999999999999999"),
              HasSubstr("x.textproto:1:7: syntax: "));
  EXPECT_THAT(ErrorOf("process {\n  name: \"a\"\n"),
              HasSubstr("x.textproto:3:1: syntax: "));
}

TEST(ScenarioParserTest, AFieldThatWasNotWrittenIsWhereItsMessageIs) {
  const absl::StatusOr<ParsedScenario> parsed = ParseScenario(
      "channel { name: \"c\" }\n\n  process { name: \"a\" }", "x.textproto");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const Field process = parsed->root().At("process", 0);
  Diagnostics diagnostics;
  diagnostics.Add(process.At("binary"), "second");
  diagnostics.Add(parsed->root().At("channel", 0).At("name"), "first");
  EXPECT_EQ(diagnostics.ToStatus().message(),
            "x.textproto:1:11: channel[0].name: first\n"
            "x.textproto:3:3: process[0].binary: second");
}

TEST(ScenarioParserTest, WithoutTextThereArePathsOnly) {
  ParsedScenario parsed;
  parsed.scenario.add_process();
  Diagnostics diagnostics;
  diagnostics.Add(parsed.root().At("process", 0).At("name"), "is not set");
  EXPECT_EQ(diagnostics.ToStatus().message(), "process[0].name: is not set");
}

TEST(ScenarioParserTest, SaysThatAFileIsMissing) {
  EXPECT_THAT(
      std::string(ParseScenarioFile("no/such.textproto").status().message()),
      HasSubstr("open the scenario no/such.textproto: No such file"));
}

}  // namespace
}  // namespace parley::control
