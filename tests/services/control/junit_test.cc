#include "services/control/junit.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::control {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::Check MakeCheck(const std::string& name, v1::Check::Result result,
                    const std::string& detail) {
  v1::Check check;
  check.set_name(name);
  check.set_result(result);
  check.set_detail(detail);
  return check;
}

Report MakeReport(v1::Verdict::Result verdict) {
  Report report = {.scenario = "pi<pe>",
                   .file = "a&b.textproto",
                   .reproduce = "parley run --seed=7 x"};
  report.seed = 7;
  report.verdict.set_result(verdict);
  report.verdict.set_detail("why");
  report.verdict.mutable_duration()->set_nanos(30'000'000);
  return report;
}

TEST(JUnitTest, ACaseForEachCheck) {
  Report report = MakeReport(v1::Verdict::FAILED);
  report.checks = {
      MakeCheck("a exit", v1::Check::PASSED, ""),
      MakeCheck("a stdout", v1::Check::FAILED, "expected \"<&>\"\nsecond"),
      MakeCheck("b exit", v1::Check::INCONCLUSIVE, "was stopped")};
  report.output[{"a", v1::Output::STDOUT}] = "x\x01y";
  const std::string xml = ToJUnitXml({report});
  EXPECT_THAT(xml, HasSubstr("<testsuite name=\"pi&lt;pe&gt;\" tests=\"3\" "
                             "failures=\"1\" errors=\"0\" skipped=\"1\" "
                             "time=\"0.030\""));
  EXPECT_THAT(xml, HasSubstr("name=\"seed\" value=\"7\""));
  EXPECT_THAT(xml, HasSubstr("<testcase name=\"a exit\" "
                             "classname=\"pi&lt;pe&gt;\"/>"));
  EXPECT_THAT(xml, HasSubstr("<failure message=\"expected &quot;&lt;&amp;&gt;"
                             "&quot;\">expected"));
  EXPECT_THAT(xml, HasSubstr("To run it again: parley run --seed=7 x"));
  EXPECT_THAT(xml, HasSubstr("<skipped message=\"was stopped\">"));
  EXPECT_THAT(xml, HasSubstr("<system-out>---- a\nx\\x01y</system-out>"));
}

TEST(JUnitTest, WhatIsNotAMatterOfChecksIsAnError) {
  const std::string xml = ToJUnitXml({MakeReport(v1::Verdict::INFRASTRUCTURE)});
  EXPECT_THAT(xml, HasSubstr("errors=\"1\""));
  EXPECT_THAT(xml, HasSubstr("<error message=\"infrastructure: why\">"));
}

TEST(JUnitTest, AScenarioThatIsToFailPassesByFailing) {
  Report report = MakeReport(v1::Verdict::FAILED);
  report.expected = v1::Verdict::FAILED;
  report.checks = {MakeCheck("a exit", v1::Check::FAILED, "boom")};
  EXPECT_THAT(ToJUnitXml({report}), Not(HasSubstr("<failure")));
  EXPECT_THAT(ToJUnitXml({report}), HasSubstr("failed, as it is to: boom"));

  report.verdict.set_result(v1::Verdict::PASSED);
  report.checks = {MakeCheck("a exit", v1::Check::PASSED, "")};
  EXPECT_THAT(ToJUnitXml({report}),
              HasSubstr("<failure message=\"expected failed, seen passed"));
}

TEST(JUnitTest, EscapesWhatXmlCannotHold) {
  EXPECT_EQ(EscapeXml("a\tb\nü€😀"), "a\tb\nü€😀");
  EXPECT_EQ(EscapeXml("\r\x1b[31m"), "&#13;\\x1b[31m");
  EXPECT_EQ(EscapeXml("\xff\xc0\x80"), "\\xff\\xc0\\x80");
  EXPECT_EQ(EscapeXml("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // a surrogate
  EXPECT_EQ(EscapeXml("\xef\xbf\xbf"), "\\xef\\xbf\\xbf");  // U+FFFF
  EXPECT_EQ(EscapeXml("\xe2\x82"), "\\xe2\\x82");           // cut off
  EXPECT_EQ(EscapeXml(absl::string_view("\0", 1)), "\\x00");
}

}  // namespace
}  // namespace parley::control
