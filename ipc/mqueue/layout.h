// What a queue's segment looks like, version 3.0.
//
//        0  Header        magic and geometry, written by the creator only
//      128    shared      rarely written
//      256    counts      statistics that are not in the words
//      384    free hints  blocks freed lately
//      512    receivers   those going to sleep for a message
//      640    senders     those going to sleep for room, or for the end of all
//      768  lanes         256 bytes each: one for each priority
//               0  tail   producers
//             128  head   consumers
//        p  participants  8 bytes each, see ipc/base/participants.h
//        s  slots         slot_count times slot_stride bytes, for each lane
//        b  blocks        64 bytes each, see block_word.h: the arena, if any
//        d  data          block_bytes for each block
//
// Each part begins at a multiple of 128, and the data at one of 4096. What
// different sides write is 128 bytes apart, since processors fetch lines of 64
// in pairs. A slot:
//
//        0  u64 word      see slot_word.h
//        8  u32 length    bytes of the message; kInBlock: it is in the arena
//       12  u16 type      what its sender said
//       14  u16 cpu       where its last user ran, plus one; 0 before the first
//       16  the message, up to inline_bytes; or a BlockName
//
// A message of up to inline_bytes travels in its slot. Longer ones, and with
// explicit acknowledgement all, travel in blocks of the arena: a receiver may
// keep a block for as long as it likes, where a slot kept would soon stop all.
//
// Everything is in the machine's own byte order. Who opens the segment takes
// the geometry once into private memory (ReadGeometry), and never again reads
// it from where a peer may change it.
//
// A later version may announce what it needs by a feature bit; a queue with a
// bit that is unknown here is not opened.
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

inline constexpr uint16_t kAbiMajor = 3;
inline constexpr uint16_t kAbiMinor = 0;
inline constexpr size_t kIsolation = 128;

// The dimensions, fixed for the queue's life.
struct Geometry {
  uint32_t slot_count;    // of a lane; a power of two
  uint32_t inline_bytes;  // the longest message in a slot; 0: all in blocks
  uint32_t slot_stride;
  uint32_t participants;
  uint64_t participants_offset;
  uint64_t slots_offset;
  uint64_t total_bytes;
  uint32_t lap_bits;     // how much of a slot word's lap counts
  uint32_t full_policy;  // a FullPolicy
  uint32_t lanes;
  uint32_t delivery;       // a Delivery
  uint64_t message_bytes;  // the longest message
  uint32_t block_bytes;
  uint32_t block_count;
  uint64_t blocks_offset;
  uint64_t data_offset;
  uint64_t type_id;  // what a TypedQueue carries; 0: bytes

  friend bool operator==(const Geometry&, const Geometry&) = default;
};

inline constexpr uint32_t kMaxLanes = 8;
inline constexpr uint32_t kFreeHints = 32;

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
    // Written by whoever pokes, so that watchers see the file change; no
    // meaning of its own.
    std::atomic<uint32_t> poke;
    // Bit 0: there may be REQ slots in this lane. The rest counts how often it
    // was set.
    std::atomic<uint64_t> requeued[kMaxLanes];
    // The same for REDELIVER blocks.
    std::atomic<uint64_t> returned;
  } shared;
  // Each raised by whoever does it.
  struct alignas(kIsolation) {
    std::atomic<uint64_t> skipped;      // slots WRITING(dead) -> SKIP
    std::atomic<uint64_t> recycled;     // slots SKIP -> FREE
    std::atomic<uint64_t> redelivered;  // REQ -> READING, REDELIVER -> HELD
    std::atomic<uint64_t> reaped;       // participants found dead
    std::atomic<uint64_t> refused;      // kDropNewest
    std::atomic<uint64_t> overwritten;  // kOverwriteOldest
    std::atomic<uint64_t> blocked_ns;   // spent by senders waiting
    std::atomic<uint64_t> high_water;   // most messages at a time, sampled
  } counts;
  // Blocks freed lately, plus one; 0: none. Only to be found sooner.
  alignas(kIsolation) std::atomic<uint32_t> free_hints[kFreeHints];
  struct alignas(kIsolation) {
    Doorbell bell;
    // Bit 0: somebody polls a descriptor; see poller.h. The rest counts how
    // often it was set.
    std::atomic<uint64_t> armed;
  } receivers;
  struct alignas(kIsolation) {
    Doorbell bell;
    Doorbell joiners;
  } senders;
};
static_assert(sizeof(Geometry) == 96);
static_assert(offsetof(Header, byte_order) == 16);
static_assert(offsetof(Header, geometry) == 32);
static_assert(offsetof(Header, shared) == 128);
static_assert(offsetof(Header, counts) == 256);
static_assert(offsetof(Header, free_hints) == 384);
static_assert(offsetof(Header, receivers) == 512);
static_assert(offsetof(Header, senders) == 640);
static_assert(sizeof(Header) == 768);

// Positions, hints that anyone may help forward; they only grow.
struct Lane {
  alignas(kIsolation) std::atomic<uint64_t> tail;
  alignas(kIsolation) std::atomic<uint64_t> head;
};
static_assert(sizeof(Lane) == 256);

// Names one allocation of the arena.
struct BlockName {
  uint32_t index;
  uint32_t generation;

  friend bool operator==(const BlockName&, const BlockName&) = default;
};
static_assert(sizeof(BlockName) == 8);

struct SlotHeader {
  static constexpr uint32_t kInBlock = 1u << 31;

  std::atomic<uint64_t> word;
  // Of whoever owns the slot: valid while it is READY, REQ or READING.
  uint32_t length;
  uint16_t type;
  // Lets a waiter guess whether its peer shares its CPU; see SpinWait. A
  // producer reads its last consumer's, and the consumer its producer's.
  uint16_t cpu;
};
static_assert(sizeof(SlotHeader) == 16);

struct alignas(64) BlockHeader {
  std::atomic<uint64_t> word;
  // The last one given out; each allocation takes the next.
  std::atomic<uint32_t> generation;
  // Of the head's owner: valid while the block is QUEUED, HELD or REDELIVER.
  uint16_t type;
  // Also read by who looks for messages to drop.
  std::atomic<uint16_t> lane;
  uint64_t length;
};
static_assert(sizeof(BlockHeader) == 64);

inline constexpr uint32_t kMaxSlots = 1u << 24;
// What a message in its slot may take: with its header, four cache lines.
inline constexpr uint32_t kMaxInlineBytes = 240;
inline constexpr uint64_t kMaxMessageBytes = uint64_t{1} << 40;
inline constexpr uint32_t kMaxBlockBytes = 1u << 30;

// What a creator asks for; what the words mean is said at Options in queue.h.
struct GeometryRequest {
  uint64_t slots;
  uint64_t message_bytes;
  uint64_t priorities = 1;
  uint64_t arena_bytes = 0;  // 0: chosen here
  uint64_t block_bytes = 0;  // 0: chosen here
  uint64_t participants;
  uint32_t lap_bits;
  uint32_t full_policy;
  uint32_t delivery;
  uint64_t type_id = 0;
};

// The geometry for it; InvalidArgument beyond the limits.
absl::StatusOr<Geometry> MakeGeometry(const GeometryRequest& request);

// Writes everything of a new segment that is not zero.
void InitializeHeader(const Geometry& geometry, Header* header);

// A checked copy of the geometry of the segment behind `fd`. InvalidArgument if
// that is not a queue, FailedPrecondition if it is another version's or could
// shrink, DataLoss if the geometry contradicts itself or the size of the file.
absl::StatusOr<Geometry> ReadGeometry(int fd);

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_LAYOUT_H_
