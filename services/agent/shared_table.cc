#include "services/agent/shared_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/segment.h"

namespace parley::agent {

using ::ipc::shm::Array;
using ::ipc::shm::Segment;
using ::ipc::shm::Value;

size_t SharedTable::SizeBytes(size_t length) {
  return Value<int32_t>::SizeBytes() + Array<int32_t>::SizeBytes(length);
}

absl::StatusOr<SharedTable> SharedTable::Adopt(Agent& agent,
                                               absl::string_view name,
                                               size_t length) {
  absl::StatusOr<ipc::UniqueFd> fd = agent.TakeFd(name);
  if (!fd.ok()) return fd.status();
  absl::StatusOr<Segment> segment = Segment::FromFd(*std::move(fd));
  if (!segment.ok()) {
    return ipc::Annotate(segment.status(), "the granted channel must be a shm");
  }
  if (segment->bytes().size() < SizeBytes(length)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the granted shm has ", segment->bytes().size(),
                     " bytes, but an "
                     "integer and an array of ",
                     length, " take ", SizeBytes(length),
                     ": raise `bytes` of the channel in the scenario"));
  }
  absl::StatusOr<Value<int32_t>> value = Value<int32_t>::Attach(*segment, 0);
  if (!value.ok()) return value.status();
  absl::StatusOr<Array<int32_t>> array =
      Array<int32_t>::Attach(*segment, Value<int32_t>::SizeBytes(), length);
  if (!array.ok()) return array.status();
  return SharedTable{*std::move(value), *std::move(array)};
}

}  // namespace parley::agent
