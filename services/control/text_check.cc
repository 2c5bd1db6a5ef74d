#include "services/control/text_check.h"

#include <algorithm>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "re2/re2.h"
#include "services/control/utf8.h"

namespace parley::control {
namespace {

constexpr size_t kLongest = 300;

std::string Difference(absl::string_view expected, absl::string_view seen) {
  const size_t at =
      std::mismatch(expected.begin(), expected.end(), seen.begin(), seen.end())
          .first -
      expected.begin();
  const auto line =
      1 + std::count(expected.begin(), expected.begin() + at, '\n');
  const auto rest = [&](absl::string_view text) {
    return at == text.size() ? "the end" : Excerpt(text.substr(at));
  };
  return absl::StrCat("they differ from byte ", at, " on, in line ", line,
                      ": expected ", rest(expected), ", seen ", rest(seen));
}

}  // namespace

std::string Excerpt(absl::string_view text) {
  std::string excerpt = "\"";
  absl::string_view rest = text;
  while (!rest.empty() && excerpt.size() <= kLongest) {
    const size_t length = std::max<size_t>(1, Utf8SequenceLength(rest));
    // Of a character, all of it or nothing: reports must be valid UTF-8.
    absl::StrAppend(&excerpt, length > 1 ? std::string(rest.substr(0, length))
                                         : absl::CEscape(rest.substr(0, 1)));
    rest.remove_prefix(length);
  }
  if (rest.empty()) return excerpt + "\"";
  return absl::StrCat(excerpt, "\"… (", text.size(), " bytes)");
}

std::string CheckText(const v1::Text& expected, absl::string_view seen) {
  std::vector<std::string> wrong;
  if (expected.has_equals() && seen != expected.equals()) {
    wrong.push_back(
        absl::StrCat("expected exactly ", Excerpt(expected.equals()), ", seen ",
                     Excerpt(seen), "; ", Difference(expected.equals(), seen)));
  }
  for (const std::string& part : expected.contains()) {
    if (absl::StrContains(seen, part)) continue;
    wrong.push_back(absl::StrCat("expected to contain ", Excerpt(part),
                                 ", seen ", Excerpt(seen)));
  }
  for (const std::string& pattern : expected.matches()) {
    if (RE2::PartialMatch(re2::StringPiece(seen.data(), seen.size()),
                          RE2(pattern, RE2::Quiet))) {
      continue;
    }
    wrong.push_back(absl::StrCat("expected a match of /", pattern, "/, seen ",
                                 Excerpt(seen)));
  }
  return absl::StrJoin(wrong, "\n");
}

}  // namespace parley::control
