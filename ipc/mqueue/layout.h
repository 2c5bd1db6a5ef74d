// What a queue's segment looks like, version 1.0.
//
//        0  Header        magic and geometry, written by the creator only
//      128    shared      rarely written
//      256    tail        producers
//      384    head        consumers
//      512    receivers   consumers going to sleep
//      640    senders     producers going to sleep
//      768  participants  8 bytes each, see ipc/base/participants.h
//        s  slots         slot_count times slot_stride bytes
//
// `s` is the end of the participants, rounded up to 128. What different sides
// write is 128 bytes apart, since processors fetch lines of 64 in pairs. A
// slot:
//
//        0  u64 word      see slot_word.h
//        8  u32 length    bytes of the message
//       12  u16 type      0; kept for later
//       14  u16 cpu       where its last user ran, plus one; 0 before the first
//       16  the message, up to message_bytes
//
// Everything is in the machine's own byte order. Who opens the segment takes
// the geometry once into private memory (ReadGeometry), and never again reads
// it from where a peer may change it.
//
// A later version may put what it needs behind the slots and announce it by a
// feature bit; a queue with a bit that is unknown here is not opened.
#ifndef IPC_MQUEUE_LAYOUT_H_
#define IPC_MQUEUE_LAYOUT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ipc/base/memory.h"
#include "ipc/mqueue/doorbell.h"

namespace ipc::mqueue {

inline constexpr uint16_t kAbiMajor = 1;
inline constexpr uint16_t kAbiMinor = 0;
inline constexpr size_t kIsolation = 128;

// The dimensions, fixed for the queue's life.
struct Geometry {
  uint32_t slot_count;     // a power of two
  uint32_t message_bytes;  // the longest message
  uint32_t slot_stride;
  uint32_t participants;
  uint64_t participants_offset;
  uint64_t slots_offset;
  uint64_t total_bytes;
  uint32_t lap_bits;     // how much of a slot word's lap counts
  uint32_t full_policy;  // a FullPolicy

  friend bool operator==(const Geometry&, const Geometry&) = default;
};

struct Header {
  static constexpr uint32_t kByteOrder = 0x01020304;

  SegmentPrefix prefix;
  uint32_t byte_order;
  uint32_t header_bytes;
  uint64_t features;
  Geometry geometry;

  struct alignas(kIsolation) {
    // 0, or 1 once closed for send. Written by any CloseForSend.
    std::atomic<uint32_t> closed;
    // Bit 0: there may be REQ slots. The rest counts how often it was set.
    std::atomic<uint64_t> requeued;
    // Statistics, each raised by whoever does it.
    std::atomic<uint64_t> skipped;      // WRITING(dead) -> SKIP
    std::atomic<uint64_t> recycled;     // SKIP -> FREE
    std::atomic<uint64_t> redelivered;  // REQ -> READING
    std::atomic<uint64_t> reaped;       // participants found dead
  } shared;
  // Positions, hints that anyone may help forward; they only grow.
  alignas(kIsolation) std::atomic<uint64_t> tail;
  alignas(kIsolation) std::atomic<uint64_t> head;
  alignas(kIsolation) Doorbell receivers;
  alignas(kIsolation) Doorbell senders;
};
static_assert(sizeof(Geometry) == 48);
static_assert(offsetof(Header, byte_order) == 16);
static_assert(offsetof(Header, geometry) == 32);
static_assert(offsetof(Header, shared) == 128);
static_assert(offsetof(Header, tail) == 256);
static_assert(offsetof(Header, head) == 384);
static_assert(offsetof(Header, receivers) == 512);
static_assert(offsetof(Header, senders) == 640);
static_assert(sizeof(Header) == 768);

struct SlotHeader {
  std::atomic<uint64_t> word;
  // Of whoever owns the slot: valid while it is READY, REQ or READING.
  uint32_t length;
  uint16_t type;
  // Lets a waiter guess whether its peer shares its CPU; see SpinWait. A
  // producer reads its last consumer's, and the consumer its producer's.
  uint16_t cpu;
};
static_assert(sizeof(SlotHeader) == 16);

inline constexpr uint32_t kMaxSlots = 1u << 24;
inline constexpr uint32_t kMaxMessageBytes = 1u << 24;

// The geometry for what a creator asks; InvalidArgument beyond the limits.
absl::StatusOr<Geometry> MakeGeometry(uint64_t slots, uint64_t message_bytes,
                                      uint64_t participants, uint32_t lap_bits,
                                      uint32_t full_policy);

// Writes everything of a new segment that is not zero.
void InitializeHeader(const Geometry& geometry, Header* header);

// A checked copy of the geometry of the segment behind `fd`. InvalidArgument if
// that is not a queue, FailedPrecondition if it is another version's or could
// shrink, DataLoss if the geometry contradicts itself or the size of the file.
absl::StatusOr<Geometry> ReadGeometry(int fd);

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_LAYOUT_H_
