#include "tools/bench/python.h"

#include <stdio.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tools/bench/die.h"

namespace bench {

std::vector<double> RunPython(absl::string_view script,
                              const std::vector<std::string>& arguments,
                              size_t count) {
  const std::string command = absl::StrCat("python3 tools/bench/", script, " ",
                                           absl::StrJoin(arguments, " "));
  FILE* const output = popen(command.c_str(), "r");
  CheckCall(output != nullptr, "popen");
  char line[256] = {};
  bool fine = fgets(line, sizeof(line), output) != nullptr;
  fine &= pclose(output) == 0;
  std::vector<double> numbers;
  for (const absl::string_view word :
       absl::StrSplit(line, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    fine &= absl::SimpleAtod(word, &numbers.emplace_back());
  }
  if (!fine || numbers.size() != count) {
    Die(absl::StrCat(command, " has failed").c_str());
  }
  return numbers;
}

}  // namespace bench
