// What the segment of a ring looks like, version 1.0. Integers are of the
// machine's byte order, which the header tells.
//
//   offset
//        0  RingHeader    written by the creator before anybody else has the
//                         descriptor: constants, which never change, and then
//                         the words below, all zero at first
//   header_size           of a page
//           data          `capacity` bytes, a power of two
//   total_size            of the file, sealed
//
// Positions are 64 bits, count bytes, only grow, and are multiples of 8; the
// byte at position p is data[p % capacity]. What lies between two positions:
//
//   acked                              tail                    acked + capacity
//     | not acknowledged | not received |  the sender's, perhaps half written |
//     head <= acked <= delivered <= tail
//
// - tail: the end of what was committed. The store to it commits.
// - acked: the beginning of what a successor of the receiver is given again.
//   The store to it acknowledges.
// - head: a copy of acked for the sender, which lags behind.
// - delivered: the end of what was handed to a receiver, ever.
//
// A record begins at a multiple of 8:
//
//    0  u32 length    of the payload in bytes
//    4  u32 type      the user's
//    8  payload, and then up to 7 bytes of nothing
//
// The length kPadding instead says that the record begins only where the next
// cache line's last 8 bytes do, so that a long payload begins with a line.
#ifndef IPC_PIPE_RING_LAYOUT_H_
#define IPC_PIPE_RING_LAYOUT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "ipc/base/memory.h"

namespace ipc::pipe::internal {

inline constexpr uint64_t kRecordAlignment = 8;
inline constexpr uint64_t kRecordHeader = 8;
inline constexpr uint64_t kCacheLine = 64;
inline constexpr uint32_t kPadding = ~uint32_t{0};
// Payloads of at least so many bytes begin with a cache line.
inline constexpr uint64_t kLongPayload = 512;
// What a longest payload cannot use of the capacity.
inline constexpr uint64_t kLongestOverhead = kCacheLine;
inline constexpr uint64_t kMinRingCapacity = 4096;
inline constexpr uint64_t kMaxRingCapacity = uint64_t{1} << 32;

// What a record takes; no overflow for any length that fits a ring.
constexpr uint64_t RecordSize(uint64_t length) {
  return (kRecordHeader + length + kRecordAlignment - 1) &
         ~(kRecordAlignment - 1);
}
// How far it is from `position` to where the record of a long payload begins.
constexpr uint64_t PaddingAt(uint64_t position) {
  return (0 - position - kRecordHeader) & (kCacheLine - 1);
}
static_assert(PaddingAt(0) == 56 && PaddingAt(56) == 0 && PaddingAt(64) == 56);

// The first eight bytes of a record.
constexpr uint64_t PackHeader(uint32_t length, uint32_t type) {
  return uint64_t{type} << 32 | length;
}

// One of the two ends, and who has it. On a line that it writes and that the
// other one polls.
struct RingEndWords {
  // Bits 0 to 31: an EndState. 32 to 63: counts those who attached. Written by
  // whoever holds the lock of this end.
  std::atomic<uint64_t> state;
  // The process that attached last, in its own PID namespace; for messages.
  std::atomic<uint32_t> pid;
  // The CPU it ran on lately, + 1; 0 if that is not known. A guess.
  std::atomic<uint32_t> cpu;
};

enum class EndState : uint32_t {
  kNone = 0,      // nobody yet, or who was there has left
  kAttached = 1,  // and dead, if its lock is free
  kClosed = 2,    // for good
};

// On which an end sleeps, and by which the other one wakes it.
struct RingBell {
  std::atomic<uint32_t> event;    // the futex: raised before each wake-up
  std::atomic<uint32_t> waiting;  // 1: perhaps it sleeps, or it has closed
  std::atomic<uint64_t> wanted;   // of the sender: wakes at this `acked`
};

struct RingHeader {
  static constexpr uint16_t kAbiMajor = 1;
  static constexpr uint16_t kAbiMinor = 0;
  static constexpr uint32_t kByteOrder = 0x01020304;

  // Constants.
  SegmentPrefix prefix;
  uint64_t total_size;   // in bytes
  uint64_t capacity;     // in bytes
  uint32_t header_size;  // in bytes
  uint32_t byte_order;   // kByteOrder as the creator stores it
  uint32_t word_size;    // sizeof(void*) of the creator
  uint32_t reserved;     // zero
  uint64_t features;     // bits that an opener must know; none so far

  // Written by the sender.
  alignas(128) std::atomic<uint64_t> tail;
  RingEndWords sender;
  // Written by the receiver.
  alignas(128) std::atomic<uint64_t> head;
  RingEndWords receiver;
  // Written by the receiver, for each record, so not to be polled.
  alignas(128) std::atomic<uint64_t> acked;
  std::atomic<uint64_t> delivered;
  // Read by the other end for each record, written where one sleeps or wakes.
  alignas(128) RingBell receiver_bell;
  alignas(128) RingBell sender_bell;
};
static_assert(offsetof(RingHeader, total_size) == 16);
static_assert(offsetof(RingHeader, header_size) == 32);
static_assert(offsetof(RingHeader, features) == 48);
static_assert(offsetof(RingHeader, tail) == 128);
static_assert(offsetof(RingHeader, head) == 256);
static_assert(offsetof(RingHeader, acked) == 384);
static_assert(offsetof(RingHeader, receiver_bell) == 512);
static_assert(offsetof(RingHeader, sender_bell) == 640);
static_assert(sizeof(RingHeader) <= kMinRingCapacity);
static_assert(std::atomic<uint64_t>::is_always_lock_free &&
              std::atomic<uint32_t>::is_always_lock_free);

}  // namespace ipc::pipe::internal

#endif  // IPC_PIPE_RING_LAYOUT_H_
