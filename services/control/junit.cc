#include "services/control/junit.h"

#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "services/control/utf8.h"
#include "services/supervisor/proto_time.h"

namespace parley::control {
namespace {

struct TestCase {
  std::string name;
  std::string kind;  // "failure", "error", "skipped" or "" if it passed
  std::string text;
};

std::string WithReproduce(const std::string& text, const Report& report) {
  if (report.reproduce.empty()) return text;
  return absl::StrCat(text, "\n\nTo run it again: ", report.reproduce);
}

TestCase CaseOf(const v1::Check& check, const Report& report) {
  switch (check.result()) {
    case v1::Check::PASSED:
      return {check.name(), "", ""};
    case v1::Check::INCONCLUSIVE:
      return {check.name(), "skipped", check.detail()};
    default:
      if (report.AsExpected()) {
        return {check.name(), "",
                absl::StrCat("failed, as it is to: ", check.detail())};
      }
      return {check.name(), "failure", WithReproduce(check.detail(), report)};
  }
}

std::vector<TestCase> CasesOf(const Report& report) {
  std::vector<TestCase> cases;
  for (const v1::Check& check : report.checks) {
    cases.push_back(CaseOf(check, report));
  }
  const v1::Verdict::Result result = report.verdict.result();
  const std::string seen =
      absl::StrCat(VerdictName(result), ": ", report.verdict.detail());
  if (report.expected != v1::Verdict::PASSED) {
    cases.push_back(
        {"verdict", report.AsExpected() ? "" : "failure",
         report.AsExpected()
             ? ""
             : WithReproduce(
                   absl::StrCat("expected ", VerdictName(report.expected),
                                ", seen ", seen),
                   report)});
  } else if (result != v1::Verdict::PASSED && result != v1::Verdict::FAILED) {
    cases.push_back({"verdict", "error", WithReproduce(seen, report)});
  }
  return cases;
}

void AppendCase(const TestCase& test, const std::string& suite,
                std::string& xml) {
  absl::StrAppend(&xml, "    <testcase name=\"", EscapeXml(test.name),
                  "\" classname=\"", EscapeXml(suite), "\"");
  if (test.text.empty()) {
    absl::StrAppend(&xml, "/>\n");
  } else if (test.kind.empty()) {
    absl::StrAppend(&xml, "><system-out>", EscapeXml(test.text),
                    "</system-out></testcase>\n");
  } else {
    const std::string first_line = test.text.substr(0, test.text.find('\n'));
    absl::StrAppend(&xml, "><", test.kind, " message=\"", EscapeXml(first_line),
                    "\">", EscapeXml(test.text), "</", test.kind,
                    "></testcase>\n");
  }
}

void AppendSuite(const Report& report, std::string& xml) {
  const std::vector<TestCase> cases = CasesOf(report);
  const auto count = [&](absl::string_view kind) {
    int n = 0;
    for (const TestCase& test : cases) n += test.kind == kind;
    return n;
  };
  const absl::Time started = absl::FromUnixSeconds(report.started.seconds()) +
                             absl::Nanoseconds(report.started.nanos());
  absl::StrAppendFormat(
      &xml,
      "  <testsuite name=\"%s\" tests=\"%d\" failures=\"%d\" errors=\"%d\" "
      "skipped=\"%d\" time=\"%.3f\" timestamp=\"%s\">\n",
      EscapeXml(report.scenario), cases.size(), count("failure"),
      count("error"), count("skipped"),
      absl::ToDoubleSeconds(supervisor::FromProto(report.verdict.duration())),
      absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", started, absl::UTCTimeZone()));
  absl::StrAppendFormat(&xml,
                        "    <properties><property name=\"seed\" value=\"%d\"/>"
                        "<property name=\"file\" value=\"%s\"/></properties>\n",
                        report.seed, EscapeXml(report.file));
  for (const TestCase& test : cases) AppendCase(test, report.scenario, xml);
  for (const auto& [stream, name] :
       {std::pair(v1::Output::STDOUT, "system-out"),
        std::pair(v1::Output::STDERR, "system-err")}) {
    std::string text;
    for (const auto& [key, output] : report.output) {
      if (key.second != stream) continue;
      absl::StrAppend(&text, "---- ", key.first, "\n", output);
    }
    if (text.empty()) continue;
    absl::StrAppend(&xml, "    <", name, ">", EscapeXml(text), "</", name,
                    ">\n");
  }
  absl::StrAppend(&xml, "  </testsuite>\n");
}

}  // namespace

std::string EscapeXml(absl::string_view text) {
  std::string escaped;
  while (!text.empty()) {
    const size_t length = Utf8SequenceLength(text);
    const uint8_t byte = static_cast<uint8_t>(text[0]);
    const bool is_control = length == 1 && byte < 0x20 && byte != '\t' &&
                            byte != '\n' && byte != '\r';
    if (length == 0 || is_control) {
      absl::StrAppendFormat(&escaped, "\\x%02x", byte);
      text.remove_prefix(1);
      continue;
    }
    switch (text[0]) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\r':  // a parser would make a newline of it
        escaped += "&#13;";
        break;
      default:
        absl::StrAppend(&escaped, text.substr(0, length));
    }
    text.remove_prefix(length);
  }
  return escaped;
}

std::string ToJUnitXml(absl::Span<const Report> reports) {
  std::string xml =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n";
  for (const Report& report : reports) AppendSuite(report, xml);
  absl::StrAppend(&xml, "</testsuites>\n");
  return xml;
}

}  // namespace parley::control
