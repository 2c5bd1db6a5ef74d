#include "ipc/shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"
#include "ipc/shm/segment_layout.h"

namespace ipc::shm {
namespace {

using internal::HeaderSize;
using internal::SegmentHeader;

// Without this check a regular file would pass, which can always be truncated.
absl::Status CheckSealable(int fd) {
  if (fcntl(fd, F_GET_SEALS) >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("fd ", fd, " is not an anonymous segment: pass Segment::fd",
                   " of the process that created it"));
}

absl::Status CheckKind(int fd, const SegmentPrefix& prefix) {
  if (prefix.kind != SegmentKind::kShm) {
    return absl::InvalidArgumentError(absl::StrCat(
        "fd ", fd, " is a Parley segment of kind ",
        static_cast<uint32_t>(prefix.kind), ", not a shm Segment (kind ",
        static_cast<uint32_t>(SegmentKind::kShm),
        "): open it with the library that created it"));
  }
  if (prefix.abi_major != SegmentHeader::kAbiMajor) {
    return absl::FailedPreconditionError(absl::StrCat(
        "shm segment, fd ", fd, ", has layout version ", prefix.abi_major, ".",
        prefix.abi_minor, ", this program knows ", SegmentHeader::kAbiMajor,
        ": build both from the same release"));
  }
  return absl::OkStatus();
}

// `header` is a private copy, `size` what the kernel says.
absl::Status CheckHeader(int fd, const SegmentHeader& header, size_t size) {
  if (header.byte_order != SegmentHeader::kByteOrder ||
      header.word_size != sizeof(void*) || header.features != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "shm segment, fd ", fd, ", was made for word size ", header.word_size,
        ", byte order ", absl::Hex(header.byte_order), ", features ",
        absl::Hex(header.features), ": build both programs alike"));
  }
  if (header.total_size != size || header.participant_capacity == 0 ||
      header.header_size != HeaderSize(header.participant_capacity) ||
      header.header_size > size ||
      header.user_size > size - header.header_size) {
    return absl::DataLossError(absl::StrCat(
        "shm segment, fd ", fd, ", of ", size, " bytes claims ",
        header.total_size, " bytes, ", header.header_size, " of header, ",
        header.user_size, " of user area and ", header.participant_capacity,
        " participants: its header is corrupt, create it anew"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Segment> Segment::CreateAnonymous(size_t bytes) {
  constexpr uint64_t kHeaderSize = HeaderSize(kMaxParticipants);
  if (bytes > PTRDIFF_MAX - kHeaderSize) {
    return absl::ResourceExhaustedError(
        absl::StrCat("creating a shm segment of ", bytes,
                     " bytes: more than an address space"));
  }
  const size_t size = kHeaderSize + bytes;
  absl::StatusOr<UniqueFd> fd = CreateMemory("parley-shm", size);
  if (!fd.ok()) return fd.status();

  SegmentHeader header = {};
  header.prefix.magic = SegmentPrefix::kMagic;
  header.prefix.kind = SegmentKind::kShm;
  header.prefix.abi_major = SegmentHeader::kAbiMajor;
  header.prefix.abi_minor = SegmentHeader::kAbiMinor;
  header.total_size = size;
  header.user_size = bytes;
  header.header_size = kHeaderSize;
  header.participant_capacity = kMaxParticipants;
  header.byte_order = SegmentHeader::kByteOrder;
  header.word_size = sizeof(void*);
  const ssize_t n = RetryOnEintr(
      [&] { return pwrite(fd->get(), &header, sizeof(header), 0); });
  if (n != sizeof(header)) {
    return PosixError(n < 0 ? errno : EIO, "writing the header of a segment");
  }
  return FromFd(*std::move(fd));
}

absl::StatusOr<Segment> Segment::FromFd(UniqueFd fd, Access access) {
  const absl::StatusOr<SegmentPrefix> prefix = ReadSegmentPrefix(fd.get());
  if (!prefix.ok()) return prefix.status();
  if (auto status = CheckKind(fd.get(), *prefix); !status.ok()) return status;
  if (auto status = CheckSealable(fd.get()); !status.ok()) return status;
  const absl::StatusOr<size_t> size = SizeOfMemory(fd.get());
  if (!size.ok()) return size.status();
  if (*size < sizeof(SegmentHeader)) {
    return absl::DataLossError(
        absl::StrCat("shm segment, fd ", fd.get(), ", has only ", *size,
                     " bytes, less than its header: create it anew"));
  }
  absl::StatusOr<Mapping> mapping = Mapping::Create(fd.get(), *size, access);
  if (!mapping.ok()) return mapping.status();

  // The one time that the header is read.
  SegmentHeader header;
  std::memcpy(&header, mapping->data(), sizeof(header));
  if (auto status = CheckHeader(fd.get(), header, *size); !status.ok()) {
    return status;
  }

  auto state = std::make_shared<State>();
  state->fd = std::move(fd);
  state->mapping = *std::move(mapping);
  std::byte* const base = state->mapping.data();
  state->bytes = absl::MakeSpan(base + header.header_size, header.user_size);
  if (access == Access::kReadWrite) {
    state->participants = ParticipantTable(
        reinterpret_cast<ParticipantTable::Word*>(base + sizeof(SegmentHeader)),
        header.participant_capacity);
    // There is nothing to sweep: a lock word carries the whole epoch, by which
    // whoever wants the lock sees that its owner is gone.
    absl::StatusOr<std::unique_ptr<Attachment>> attachment = Attachment::Create(
        state->fd.get(), state->participants, [](Participant) {});
    if (!attachment.ok()) return attachment.status();
    state->attachment = *std::move(attachment);
  }
  return Segment(std::move(state));
}

absl::StatusOr<Participant> Segment::Self() const {
  if (!writable()) {
    return absl::PermissionDeniedError(
        absl::StrCat("shm segment, fd ", fd(),
                     ", is mapped for reading: open it for kReadWrite"));
  }
  return state_->attachment->Self();
}

bool Segment::IsDead(Participant participant) const {
  // Whoever holds a lock was ALIVE with its epoch before it took the lock, and
  // stays so for as long as it lives and holds it.
  state_->attachment->ReapOne(participant.index);
  const ParticipantTable::Entry entry =
      state_->participants.Load(participant.index);
  return entry.state != ParticipantTable::State::kAlive ||
         entry.epoch != participant.epoch;
}

absl::Status Segment::RenewSelfIfLost() const {
  return state_->attachment->RenewIfLost();
}

}  // namespace ipc::shm
