// SharedTable is what writer and reader share: an integer and an array of
// integers, one after the other in a shm channel.
//
//   offset 0                          Value<int32_t>
//   Value<int32_t>::SizeBytes()       Array<int32_t>, `length` elements
//
// All zero is a valid state (see ipc/shm/value.h), so nobody initialises it,
// and whoever comes first may use it.
#ifndef SERVICES_AGENT_SHARED_TABLE_H_
#define SERVICES_AGENT_SHARED_TABLE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/shm/array.h"
#include "ipc/shm/value.h"
#include "services/agent/agent.h"

namespace parley::agent {

struct SharedTable {
  // Bytes of the shm channel that a table takes.
  static size_t SizeBytes(size_t length);

  // In the channel granted as `name`; if that is empty, the only one. Errors
  // name the bytes that the channel would need.
  static absl::StatusOr<SharedTable> Adopt(Agent& agent, absl::string_view name,
                                           size_t length);

  ipc::shm::Value<int32_t> value;
  ipc::shm::Array<int32_t> array;
};

}  // namespace parley::agent

#endif  // SERVICES_AGENT_SHARED_TABLE_H_
