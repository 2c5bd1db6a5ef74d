#include "ipc/mqueue/layout.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"
#include "ipc/mqueue/block_word.h"
#include "ipc/mqueue/policy.h"
#include "ipc/mqueue/slot_word.h"

namespace ipc::mqueue {
namespace {

constexpr uint64_t RoundUp(uint64_t n, uint64_t unit) {
  return (n + unit - 1) / unit * unit;
}

absl::Status CheckRange(absl::string_view what, uint64_t value, uint64_t min,
                        uint64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "mqueue of ", value, " ", what, ": must be between ", min, " and ", max));
}

// Small messages fit one block; of large ones, about a sixteenth is lost where
// they end within their last one.
uint64_t BlockBytes(const GeometryRequest& request) {
  if (request.block_bytes != 0) return request.block_bytes;
  if (request.message_bytes <= 4096) return request.message_bytes;
  return std::clamp<uint64_t>(std::bit_ceil(request.message_bytes / 16), 4096,
                              kMaxBlockBytes);
}

// As much as the slots can hold of the longest messages (and the receivers
// again as much, if they keep them), but not so much that nobody expects it.
uint64_t DefaultArenaBytes(const GeometryRequest& request, uint64_t block_bytes,
                           uint64_t slots) {
  constexpr uint64_t kUnexpected = uint64_t{64} << 20;
  const uint64_t message = RoundUp(request.message_bytes, block_bytes);
  return std::clamp<uint64_t>(2 * slots * message, 4 * message,
                              std::max(kUnexpected, 4 * message));
}

}  // namespace

absl::StatusOr<Geometry> MakeGeometry(const GeometryRequest& request) {
  constexpr uint64_t kMaxArena =
      uint64_t{BlockWord::kMaxBlocks} * kMaxBlockBytes;
  for (const absl::Status& status :
       {CheckRange("slots", request.slots, 1, kMaxSlots),
        CheckRange("message bytes", request.message_bytes, 1, kMaxMessageBytes),
        CheckRange("priorities", request.priorities, 1, kMaxLanes),
        CheckRange("arena bytes", request.arena_bytes, 0, kMaxArena),
        CheckRange("block bytes", request.block_bytes, 0, kMaxBlockBytes),
        CheckRange("participants", request.participants, 1,
                   SlotWord::kMaxParticipants),
        CheckRange("lap bits", request.lap_bits, SlotWord::kMinLapBits,
                   SlotWord::kMaxLapBits)}) {
    if (!status.ok()) return status;
  }
  const bool explicit_ack =
      request.delivery == static_cast<uint32_t>(Delivery::kExplicitAck);
  // The limits keep all of this far below 2^64.
  Geometry geometry = {};
  geometry.slot_count = std::bit_ceil(static_cast<uint32_t>(request.slots));
  geometry.message_bytes = request.message_bytes;
  geometry.inline_bytes = explicit_ack
                              ? 0
                              : static_cast<uint32_t>(std::min<uint64_t>(
                                    request.message_bytes, kMaxInlineBytes));
  geometry.slot_stride = static_cast<uint32_t>(
      RoundUp(sizeof(SlotHeader) +
                  std::max<size_t>(geometry.inline_bytes, sizeof(BlockName)),
              64));
  geometry.participants = static_cast<uint32_t>(request.participants);
  geometry.lanes = static_cast<uint32_t>(request.priorities);
  geometry.lap_bits = request.lap_bits;
  geometry.full_policy = request.full_policy;
  geometry.delivery = request.delivery;
  geometry.type_id = request.type_id;
  geometry.participants_offset = sizeof(Header) + geometry.lanes * sizeof(Lane);
  geometry.slots_offset = RoundUp(
      geometry.participants_offset + request.participants * sizeof(uint64_t),
      kIsolation);
  const uint64_t all_slots = uint64_t{geometry.slot_count} * geometry.lanes;
  geometry.blocks_offset = RoundUp(
      geometry.slots_offset + all_slots * geometry.slot_stride, kIsolation);
  geometry.data_offset = geometry.blocks_offset;
  if (explicit_ack || request.arena_bytes != 0 ||
      request.message_bytes > geometry.inline_bytes) {
    geometry.block_bytes =
        static_cast<uint32_t>(RoundUp(BlockBytes(request), 64));
    const uint64_t arena_bytes =
        request.arena_bytes != 0
            ? request.arena_bytes
            : DefaultArenaBytes(request, geometry.block_bytes, all_slots);
    const uint64_t blocks =
        RoundUp(arena_bytes, geometry.block_bytes) / geometry.block_bytes;
    if (absl::Status status = CheckRange("blocks (arena bytes by block bytes)",
                                         blocks, 1, BlockWord::kMaxBlocks);
        !status.ok()) {
      return status;
    }
    geometry.block_count = static_cast<uint32_t>(blocks);
    if (blocks * geometry.block_bytes < request.message_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "mqueue of ", request.message_bytes, " message bytes: an arena of ",
          request.arena_bytes,
          " bytes holds none of them; make Options::arena_bytes larger"));
    }
    geometry.data_offset =
        RoundUp(geometry.blocks_offset + blocks * sizeof(BlockHeader), 4096);
  }
  geometry.total_bytes = geometry.data_offset +
                         uint64_t{geometry.block_count} * geometry.block_bytes;
  return geometry;
}

void InitializeHeader(const Geometry& geometry, Header* header) {
  header->byte_order = Header::kByteOrder;
  header->header_bytes = sizeof(Header);
  header->features = 0;
  header->geometry = geometry;
  header->prefix = {.magic = SegmentPrefix::kMagic,
                    .kind = SegmentKind::kMqueue,
                    .abi_major = kAbiMajor,
                    .abi_minor = kAbiMinor};
}

absl::StatusOr<Geometry> ReadGeometry(int fd) {
  absl::StatusOr<SegmentPrefix> prefix = ReadSegmentPrefix(fd);
  if (!prefix.ok()) return prefix.status();
  if (prefix->kind != SegmentKind::kMqueue) {
    return absl::InvalidArgumentError(
        absl::StrCat("fd ", fd, " is a segment of kind ",
                     static_cast<uint32_t>(prefix->kind),
                     ", not a mqueue: open it by the class that made it"));
  }
  if (prefix->abi_major != kAbiMajor) {
    return absl::FailedPreconditionError(absl::StrCat(
        "mqueue behind fd ", fd, " has layout version ", prefix->abi_major, ".",
        prefix->abi_minor, ", this program knows ", kAbiMajor, ".", kAbiMinor,
        ": build both sides from the same version"));
  }
  absl::StatusOr<size_t> size = SizeOfMemory(fd);
  if (!size.ok()) return size.status();

  // The part of the header that only the creator writes; read, not mapped, so
  // that this copy is the one that is checked and used.
  struct {
    SegmentPrefix prefix;
    uint32_t byte_order;
    uint32_t header_bytes;
    uint64_t features;
    Geometry geometry;
  } fixed;
  static_assert(sizeof(fixed) == offsetof(Header, geometry) + sizeof(Geometry));
  const ssize_t n =
      RetryOnEintr([&] { return pread(fd, &fixed, sizeof(fixed), 0); });
  if (n < 0) return PosixError(errno, absl::StrCat("reading mqueue, fd ", fd));
  if (n != sizeof(fixed)) {
    return absl::DataLossError(absl::StrCat("mqueue behind fd ", fd,
                                            " ends within its header, after ",
                                            n, " bytes"));
  }
  if (fixed.byte_order != Header::kByteOrder ||
      fixed.header_bytes != sizeof(Header) || fixed.features != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "mqueue behind fd ", fd, " has a header of ", fixed.header_bytes,
        " bytes, byte order mark ", absl::Hex(fixed.byte_order), ", features ",
        absl::Hex(fixed.features),
        ", which this program does not know: build both sides from the same "
        "version, for the same machine"));
  }
  const Geometry& found = fixed.geometry;
  absl::StatusOr<Geometry> expected = MakeGeometry(
      {.slots = found.slot_count,
       .message_bytes = found.message_bytes,
       .priorities = found.lanes,
       .arena_bytes = uint64_t{found.block_count} * found.block_bytes,
       .block_bytes = found.block_bytes,
       .participants = found.participants,
       .lap_bits = found.lap_bits,
       .full_policy = found.full_policy,
       .delivery = found.delivery,
       .type_id = found.type_id});
  // Everything else follows from these, so equality is the whole check.
  if (!expected.ok() || *expected != found || found.total_bytes != *size) {
    return absl::DataLossError(absl::StrCat(
        "mqueue behind fd ", fd, " of ", *size, " bytes claims ", found.lanes,
        " times ", found.slot_count, " slots of ", found.slot_stride,
        " bytes for messages of ", found.message_bytes, ", ", found.block_count,
        " blocks of ", found.block_bytes, ", ", found.participants,
        " participants and ", found.total_bytes,
        " bytes in total, which do not fit together"));
  }
  return found;
}

}  // namespace ipc::mqueue
