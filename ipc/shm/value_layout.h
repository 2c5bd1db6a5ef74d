// What a Value looks like in its segment. All bytes zero is a Value of version
// 0 whose bytes are zero.
//
//   offset  up to 8 bytes             more than 8 bytes
//        0  layout                    layout      see ipc/shm/layout.h
//        8  the value, zero-extended  version     see version_signal.h
//       16  event, waiting            the same
//       24  -                         lock        of writers; robust_lock.h
//       40  -                         -           zero
//       64  the end                   copies      see versioned_copies.h
#ifndef IPC_SHM_VALUE_LAYOUT_H_
#define IPC_SHM_VALUE_LAYOUT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "ipc/shm/layout.h"
#include "ipc/shm/robust_lock.h"
#include "ipc/shm/version_signal.h"

namespace ipc::shm::internal {

struct ValueHeader {
  std::atomic<uint64_t> layout;
  VersionSignal signal;
  RobustLock lock;
  uint64_t reserved[3];
};
static_assert(sizeof(ValueHeader) == kObjectHeaderSize);
static_assert(offsetof(ValueHeader, signal) == 8);
static_assert(offsetof(ValueHeader, lock) == 24);

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_VALUE_LAYOUT_H_
