// What a shm segment looks like, version 1.0. Integers are of the machine's
// byte order, which the header tells.
//
//   offset
//        0  SegmentHeader        64 bytes, written by the creator before it
//                                gives the descriptor away; never changed
//       64  participants         8 bytes each; see ipc/base/participants.h
//   header_size                  rounded up to 64
//           user area            user_size bytes, zero at first
//   total_size                   of the file, sealed
//
// The user area holds what its users agree on: each Value and Array begins with
// a 64-bit word that tells its layout; see ipc/shm/layout.h.
#ifndef IPC_SHM_SEGMENT_LAYOUT_H_
#define IPC_SHM_SEGMENT_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ipc/base/memory.h"

namespace ipc::shm::internal {

struct SegmentHeader {
  static constexpr uint16_t kAbiMajor = 1;
  static constexpr uint16_t kAbiMinor = 0;
  static constexpr uint32_t kByteOrder = 0x01020304;

  SegmentPrefix prefix;
  uint64_t total_size;   // in bytes
  uint64_t user_size;    // in bytes
  uint32_t header_size;  // in bytes: where the user area begins
  uint32_t participant_capacity;
  uint32_t byte_order;  // kByteOrder as the creator stores it
  uint32_t word_size;   // sizeof(void*) of the creator
  uint64_t features;    // bits that an opener must know; none so far
  uint64_t reserved;    // zero
};
static_assert(sizeof(SegmentHeader) == 64);
static_assert(offsetof(SegmentHeader, total_size) == 16);
static_assert(offsetof(SegmentHeader, header_size) == 32);
static_assert(offsetof(SegmentHeader, byte_order) == 40);
static_assert(offsetof(SegmentHeader, features) == 48);
static_assert(std::is_trivially_copyable_v<SegmentHeader>);

// The header with its table of participants; no overflow for any argument.
constexpr uint64_t HeaderSize(uint32_t participant_capacity) {
  return (sizeof(SegmentHeader) + uint64_t{8} * participant_capacity + 63) /
         64 * 64;
}

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_SEGMENT_LAYOUT_H_
