#include "tests/testing/process_state.h"

#include <cstdio>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace ipc::testing {

char ProcessState(pid_t pid) {
  FILE* const file = fopen(absl::StrCat("/proc/", pid, "/stat").c_str(), "re");
  if (file == nullptr) return '?';
  char line[256] = {};
  // The letter after the name, which is in parentheses.
  const char* const end =
      fgets(line, sizeof(line), file) != nullptr ? strrchr(line, ')') : nullptr;
  fclose(file);
  return end != nullptr && end[1] == ' ' ? end[2] : '?';
}

int64_t VoluntarySwitches(pid_t id) {
  FILE* const file = fopen(absl::StrCat("/proc/", id, "/status").c_str(), "re");
  if (file == nullptr) return -1;
  long long switches = -1;
  char line[256];
  while (switches < 0 && fgets(line, sizeof(line), file) != nullptr) {
    sscanf(line, "voluntary_ctxt_switches: %lld", &switches);
  }
  fclose(file);
  return switches;
}

}  // namespace ipc::testing
