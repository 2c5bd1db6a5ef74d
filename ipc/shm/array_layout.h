// What an Array looks like in its segment. All bytes zero is an Array of zeroed
// elements that nobody has locked.
//
//   offset
//        0  layout     see ipc/shm/layout.h
//        8  lock       see ipc/shm/robust_lock.h
//       24  sequence   odd while a holder may be changing elements, or if one
//                      died doing so; written by the holder only
//       32  zero
//       64  undo log   see ipc/shm/undo_log.h; only if asked for
//           elements   without gaps, at a multiple of 64
#ifndef IPC_SHM_ARRAY_LAYOUT_H_
#define IPC_SHM_ARRAY_LAYOUT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "ipc/shm/layout.h"
#include "ipc/shm/robust_lock.h"

namespace ipc::shm::internal {

struct ArrayHeader {
  std::atomic<uint64_t> layout;
  RobustLock lock;
  std::atomic<uint64_t> sequence;
  uint64_t reserved[4];
};
static_assert(sizeof(ArrayHeader) == kObjectHeaderSize);
static_assert(offsetof(ArrayHeader, lock) == 8);
static_assert(offsetof(ArrayHeader, sequence) == 24);

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_ARRAY_LAYOUT_H_
