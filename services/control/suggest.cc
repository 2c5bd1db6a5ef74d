#include "services/control/suggest.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace parley::control {
namespace {

// Levenshtein's distance, without regard to case.
size_t Distance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced =
          diagonal + (absl::ascii_tolower(a[i]) != absl::ascii_tolower(b[j]));
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

// Also when one is the beginning of the other: "bin" for "binary".
bool IsNear(absl::string_view a, absl::string_view b, size_t distance) {
  const size_t shorter = std::min(a.size(), b.size());
  return distance <= std::max<size_t>(1, a.size() / 3) ||
         (shorter >= 3 && a.substr(0, shorter) == b.substr(0, shorter));
}

}  // namespace

std::string Suggest(absl::string_view name, std::vector<std::string> known) {
  if (known.empty()) return "; there are none";
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  const auto nearest =
      std::min_element(known.begin(), known.end(),
                       [&](const std::string& a, const std::string& b) {
                         return Distance(name, a) < Distance(name, b);
                       });
  const std::string all = absl::StrJoin(known, ", ");
  if (!IsNear(name, *nearest, Distance(name, *nearest))) {
    return absl::StrCat("; write one of: ", all);
  }
  if (known.size() == 1) return absl::StrCat("; write \"", all, "\" instead");
  return absl::StrCat("; write \"", *nearest, "\" instead (there are: ", all,
                      ")");
}

}  // namespace parley::control
