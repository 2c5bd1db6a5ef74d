#include "services/control/expect_rules.h"

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "re2/re2.h"
#include "services/control/field_rules.h"
#include "services/control/names.h"
#include "services/control/suggest.h"

namespace parley::control {
namespace {

void CheckExit(const Field& field, const v1::Exit& exit,
               Diagnostics& diagnostics) {
  switch (exit.how_case()) {
    case v1::Exit::kCode:
      if (exit.code() < 0 || exit.code() > 255) {
        diagnostics.Add(field.At("code"),
                        absl::StrCat("no process exits with ", exit.code(),
                                     "; write 0 to 255, or `signal: "
                                     "\"SIGKILL\"` for a death by signal"));
      }
      break;
    case v1::Exit::kSignal:
      CheckSignal(field.At("signal"), exit.signal(), diagnostics);
      break;
    case v1::Exit::HOW_NOT_SET:
      diagnostics.Add(field,
                      "expects nothing; write `code: 0` or `signal: "
                      "\"SIGKILL\"` in it");
  }
}

void CheckText(const Field& field, const v1::Text& text,
               Diagnostics& diagnostics) {
  if (!text.has_equals() && text.contains_size() == 0 &&
      text.matches_size() == 0) {
    diagnostics.Add(field,
                    "expects nothing; write `equals`, `contains` or "
                    "`matches` in it");
  }
  for (int i = 0; i < text.contains_size(); ++i) {
    if (text.contains(i).empty()) {
      diagnostics.Add(field.At("contains", i),
                      "any output contains an empty text; write `equals: "
                      "\"\"` to expect none");
    }
  }
  for (int i = 0; i < text.matches_size(); ++i) {
    const RE2 pattern(text.matches(i), RE2::Quiet);
    if (!pattern.ok()) {
      diagnostics.Add(
          field.At("matches", i),
          absl::StrCat("\"", text.matches(i), "\" is no regular expression (",
                       pattern.error(),
                       "); write one of RE2's syntax, or `contains` for "
                       "literal text"));
    }
  }
}

}  // namespace

void CheckExpects(const ParsedScenario& parsed, Diagnostics& diagnostics) {
  const std::map<std::string, NamedProcess> names =
      ProcessNames(parsed.scenario);
  std::vector<std::string> known;
  for (const auto& [name, process] : names) known.push_back(name);
  for (int i = 0; i < parsed.scenario.expect_size(); ++i) {
    const v1::Expect& expect = parsed.scenario.expect(i);
    const Field outer = parsed.root().At("expect", i);
    if (!expect.has_process()) {
      diagnostics.Add(outer,
                      "expects nothing; write `process { name: … exit { code: "
                      "0 } }` in it");
      continue;
    }
    const v1::ProcessExpect& process = expect.process();
    const Field field = outer.At("process");
    if (!names.contains(process.name())) {
      diagnostics.Add(field.At("name"),
                      absl::StrCat("there is no process \"", process.name(),
                                   "\"", Suggest(process.name(), known)));
    }
    if (!process.has_exit() && !process.has_stdout() && !process.has_stderr()) {
      diagnostics.Add(field,
                      "expects nothing; write `exit`, `stdout` or `stderr` "
                      "in it");
    }
    if (process.has_exit()) {
      CheckExit(field.At("exit"), process.exit(), diagnostics);
    }
    if (process.has_stdout()) {
      CheckText(field.At("stdout"), process.stdout(), diagnostics);
    }
    if (process.has_stderr()) {
      CheckText(field.At("stderr"), process.stderr(), diagnostics);
    }
  }
}

}  // namespace parley::control
