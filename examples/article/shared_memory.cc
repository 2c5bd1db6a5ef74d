// The article's second program: a number and ten more in shared memory. See
// README.md.
#include <cstddef>
#include <cstdio>
#include <numeric>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_join.h"
#include "ipc/process/process.h"
#include "ipc/shm/array.h"
#include "ipc/shm/value.h"

using ipc::process::Process;
using ipc::shm::Array;
using ipc::shm::Value;

int Writer(Value<int>& value, Array<int>& array) {
  if (!value.Store(5).ok()) return 1;
  for (size_t i = 0; i < array.size(); ++i) {
    if (!array.Set(i, static_cast<int>(i) * 2).ok()) return 1;
  }
  return 0;
}

int Reader(const Value<int>& value, const Array<int>& array) {
  const absl::StatusOr<int> number = value.Load();
  const absl::StatusOr<std::vector<int>> numbers = array.Snapshot();
  if (!number.ok() || !numbers.ok()) return 1;
  printf("Value: %d\n", *number);
  printf("Array: [%s]\n", absl::StrJoin(*numbers, ", ").c_str());
  return 0;
}

int main() {
  Value<int> value = Value<int>::CreateAnonymous(0).value();
  Array<int> array = Array<int>::CreateAnonymous(10).value();
  {
    auto guard = array.Lock().value();
    std::iota(guard.span().begin(), guard.span().end(), 0);
  }

  Process p1 = Process::Start([&] { return Writer(value, array); }).value();
  const bool written = p1.Join().value().exitcode() == 0;

  Process p2 = Process::Start([&] { return Reader(value, array); }).value();
  const bool read = p2.Join().value().exitcode() == 0;
  return written && read ? 0 : 1;
}
