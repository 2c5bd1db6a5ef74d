#include "ipc/mqueue/layout.h"

#include <errno.h>
#include <unistd.h>

#include <bit>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"
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

}  // namespace

absl::StatusOr<Geometry> MakeGeometry(uint64_t slots, uint64_t message_bytes,
                                      uint64_t participants, uint32_t lap_bits,
                                      uint32_t full_policy) {
  for (const absl::Status& status :
       {CheckRange("slots", slots, 1, kMaxSlots),
        CheckRange("message bytes", message_bytes, 1, kMaxMessageBytes),
        CheckRange("participants", participants, 1, SlotWord::kMaxParticipants),
        CheckRange("lap bits", lap_bits, SlotWord::kMinLapBits,
                   SlotWord::kMaxLapBits)}) {
    if (!status.ok()) return status;
  }
  // The limits keep all of this far below 2^64.
  Geometry geometry = {};
  geometry.slot_count = std::bit_ceil(static_cast<uint32_t>(slots));
  geometry.message_bytes = static_cast<uint32_t>(message_bytes);
  geometry.slot_stride =
      static_cast<uint32_t>(RoundUp(sizeof(SlotHeader) + message_bytes, 64));
  geometry.participants = static_cast<uint32_t>(participants);
  geometry.participants_offset = sizeof(Header);
  geometry.slots_offset =
      RoundUp(sizeof(Header) + participants * sizeof(uint64_t), kIsolation);
  geometry.total_bytes = geometry.slots_offset +
                         uint64_t{geometry.slot_count} * geometry.slot_stride;
  geometry.lap_bits = lap_bits;
  geometry.full_policy = full_policy;
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
  absl::StatusOr<Geometry> expected =
      MakeGeometry(found.slot_count, found.message_bytes, found.participants,
                   found.lap_bits, found.full_policy);
  // Everything else follows from these five, so equality is the whole check.
  if (!expected.ok() || *expected != found || found.total_bytes != *size) {
    return absl::DataLossError(absl::StrCat(
        "mqueue behind fd ", fd, " of ", *size, " bytes claims ",
        found.slot_count, " slots of ", found.slot_stride,
        " bytes for messages of ", found.message_bytes, ", ",
        found.participants, " participants and ", found.total_bytes,
        " bytes in total, which do not fit together"));
  }
  return found;
}

}  // namespace ipc::mqueue
