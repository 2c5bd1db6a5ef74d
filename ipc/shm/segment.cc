#include "ipc/shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/base/named_memory.h"
#include "ipc/base/own_descriptors.h"
#include "ipc/base/posix_error.h"
#include "ipc/shm/segment_layout.h"

namespace ipc::shm {
namespace {

using internal::HeaderSize;
using internal::SegmentHeader;

// Without this check a file of a disk would pass, which others may truncate.
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
  // Objects in the segment have room for kMaxParticipants, and no more.
  if (header.total_size != size || header.participant_capacity == 0 ||
      header.participant_capacity > Segment::kMaxParticipants ||
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

constexpr uint64_t kHeaderSize = HeaderSize(Segment::kMaxParticipants);

// Of a file for so many bytes of a user.
absl::StatusOr<size_t> FileSize(size_t bytes) {
  // Far from overflow, whatever is added to it.
  if (bytes <= PTRDIFF_MAX / 2) return kHeaderSize + bytes;
  return absl::ResourceExhaustedError(
      absl::StrCat("creating a shm segment of ", bytes,
                   " bytes: more than an address space"));
}

absl::Status WriteHeader(int fd, size_t bytes) {
  const absl::StatusOr<size_t> size = SizeOfMemory(fd);
  if (!size.ok()) return size.status();
  SegmentHeader header = {};
  header.prefix.magic = SegmentPrefix::kMagic;
  header.prefix.kind = SegmentKind::kShm;
  header.prefix.abi_major = SegmentHeader::kAbiMajor;
  header.prefix.abi_minor = SegmentHeader::kAbiMinor;
  header.total_size = *size;
  header.user_size = bytes;
  header.header_size = kHeaderSize;
  header.participant_capacity = Segment::kMaxParticipants;
  header.byte_order = SegmentHeader::kByteOrder;
  header.word_size = sizeof(void*);
  // Not by pwrite, which files of huge pages do not have.
  const absl::StatusOr<Mapping> mapping = Mapping::Create(fd, *size);
  if (!mapping.ok()) return mapping.status();
  std::memcpy(mapping->data(), &header, sizeof(header));
  return absl::OkStatus();
}

// For each of the participants that lives, or was killed, counts one.
void Count(int fd, const SegmentHeader& header, Segment::Listing* listing) {
  for (uint32_t i = 0; i < header.participant_capacity; ++i) {
    uint64_t word;
    const off_t offset = sizeof(header) + off_t{i} * 8;
    if (pread(fd, &word, sizeof(word), offset) != sizeof(word)) return;
    if (static_cast<uint32_t>(word) == 0) continue;  // FREE
    if (IsParticipantLocked(fd, i)) {
      ++listing->alive;
    } else {
      ++listing->dead;
    }
  }
}

// What is known of a named segment, behind an own description; or nothing if it
// is none, such as a Queue.
std::optional<Segment::Listing> Inspect(absl::string_view name, int fd) {
  const absl::StatusOr<SegmentPrefix> prefix = ReadSegmentPrefix(fd);
  const absl::StatusOr<size_t> size = SizeOfMemory(fd);
  SegmentHeader header;
  if (!prefix.ok() || !CheckKind(fd, *prefix).ok() || !size.ok() ||
      pread(fd, &header, sizeof(header), 0) != sizeof(header) ||
      !CheckHeader(fd, header, *size).ok()) {
    return std::nullopt;
  }
  Segment::Listing listing = {.name = std::string(name),
                              .bytes = header.user_size,
                              .alive = 0,
                              .dead = 0,
                              .in_use = false};
  Count(fd, header, &listing);
  listing.in_use = IsFileShared(fd);
  return listing;
}

// The file of that name, shared: so nobody removes it as stale, or has already.
absl::StatusOr<UniqueFd> OpenShared(absl::string_view name, Access access) {
  // Again if it was removed after it was opened; then there is none, or another
  // one. Who removes it has claimed it for some microseconds before, or longer
  // if it is stopped.
  constexpr absl::Duration kPause = absl::Microseconds(100);
  const Deadline patience = Deadline::After(absl::Seconds(1));
  while (true) {
    absl::StatusOr<UniqueFd> fd = OpenNamedMemory(name, access);
    if (!fd.ok()) return fd;
    const int raw_fd = fd->get();
    if (absl::Status status = ShareFile(raw_fd); !status.ok()) {
      if (patience.HasPassed()) {
        return Annotate(status, absl::StrCat("shm segment ", name));
      }
      if (HasName(raw_fd)) absl::SleepFor(kPause);
      continue;
    }
    if (HasName(raw_fd)) return fd;
  }
}

bool RemoveIfStale(absl::string_view name) {
  const absl::StatusOr<UniqueFd> fd = OpenNamedMemory(name);
  if (!fd.ok()) return false;
  const std::optional<Segment::Listing> listing = Inspect(name, fd->get());
  if (!listing.has_value() || listing->in_use || listing->dead == 0) {
    return false;
  }
  // Nobody can begin to use it as long as we have it, and whoever opened it
  // before finds that its name is gone.
  const absl::StatusOr<bool> claimed = ClaimFile(fd->get());
  if (!claimed.ok() || !*claimed) return false;
  // Whoever came in between has left again, and may have done so in order.
  const std::optional<Segment::Listing> again = Inspect(name, fd->get());
  if (!again.has_value() || again->dead == 0) return false;
  // The name might lead to another file meanwhile. Segment::Unlink leaves it
  // alone from here on, but rm or Python do not.
  const absl::StatusOr<bool> is_removed = UnlinkIfSame(name, fd->get());
  return is_removed.ok() && *is_removed;
}

}  // namespace

Segment::State::~State() {
  // Whoever leaves in order has seen to the dead: see RemoveStale.
  Participant self;
  if (reaps_all && attachment->GetSelf(&self)) attachment->ReapAll();
}

absl::StatusOr<Segment> Segment::CreateAnonymous(size_t bytes,
                                                 const Options& options) {
  const absl::StatusOr<size_t> size = FileSize(bytes);
  if (!size.ok()) return size.status();
  absl::StatusOr<UniqueFd> fd = absl::UnavailableError("not asked for");
  if (options.huge_pages) fd = CreateHugeMemory("parley-shm", *size);
  if (absl::IsUnavailable(fd.status())) fd = CreateMemory("parley-shm", *size);
  if (!fd.ok()) return fd.status();
  if (absl::Status status = WriteHeader(fd->get(), bytes); !status.ok()) {
    return status;
  }
  return FromFd(*std::move(fd));
}

absl::StatusOr<Segment> Segment::Create(absl::string_view name, size_t bytes) {
  return Create(name, bytes, [](const Segment&) { return absl::OkStatus(); });
}

absl::StatusOr<Segment> Segment::Create(
    absl::string_view name, size_t bytes,
    absl::FunctionRef<absl::Status(const Segment&)> complete) {
  if (absl::Status status = CheckMemoryName(name); !status.ok()) return status;
  const absl::StatusOr<size_t> size = FileSize(bytes);
  if (!size.ok()) return size.status();
  const std::string what = absl::StrCat("creating shm segment ", name);
  absl::StatusOr<UniqueFd> fd = CreateUnnamedFile(*size);
  if (!fd.ok()) return Annotate(fd.status(), what);
  if (absl::Status status = WriteHeader(fd->get(), bytes); !status.ok()) {
    return Annotate(status, what);
  }
  absl::StatusOr<Segment> segment = FromFd(*std::move(fd));
  if (!segment.ok()) return Annotate(segment.status(), what);
  if (absl::Status status = complete(*segment); !status.ok()) return status;
  // Last of all: nobody finds it before it is complete, and has a participant.
  if (absl::Status status = PublishMemory(segment->fd(), name); !status.ok()) {
    return status;
  }
  return segment;
}

absl::StatusOr<Segment> Segment::Open(absl::string_view name, Access access) {
  absl::StatusOr<UniqueFd> fd = OpenShared(name, access);
  if (!fd.ok()) return fd.status();
  absl::StatusOr<Segment> segment = FromFd(*std::move(fd), access);
  if (segment.ok()) return segment;
  return Annotate(segment.status(), absl::StrCat("opening shm segment ", name));
}

absl::Status Segment::Unlink(absl::string_view name) {
  // Who is about to remove a stale one has looked at what the name leads to,
  // and that must not change before he does.
  const absl::StatusOr<UniqueFd> fd = OpenShared(name, Access::kRead);
  if (absl::IsUnavailable(fd.status())) return fd.status();
  return UnlinkNamedMemory(name);
}

absl::StatusOr<std::vector<Segment::Listing>> Segment::List() {
  const absl::StatusOr<std::vector<std::string>> names = ListNamedMemory();
  if (!names.ok()) return names.status();
  std::vector<Listing> listings;
  // Most of these files may be anybody's, with his locks on them.
  const absl::Status status = RunWithOwnDescriptors([&] {
    for (const std::string& name : *names) {
      const absl::StatusOr<UniqueFd> fd = OpenNamedMemory(name, Access::kRead);
      if (!fd.ok()) continue;  // gone since
      const std::optional<Listing> listing = Inspect(name, fd->get());
      if (listing.has_value()) listings.push_back(*listing);
    }
  });
  if (!status.ok()) return Annotate(status, "listing shm segments");
  return listings;
}

absl::StatusOr<std::vector<std::string>> Segment::RemoveStale() {
  const absl::StatusOr<std::vector<std::string>> names = ListNamedMemory();
  if (!names.ok()) return names.status();
  std::vector<std::string> removed;
  const absl::Status status = RunWithOwnDescriptors([&] {
    for (const std::string& name : *names) {
      if (RemoveIfStale(name)) removed.push_back(name);
    }
  });
  if (!status.ok()) return Annotate(status, "removing stale shm segments");
  return removed;
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
  const bool may_have_name = IsNamedMemory(fd.get());
  if (may_have_name) {
    // It belongs to the description, so it stays for as long as anybody has
    // that, such as a forked child, or who got it by a socket.
    if (auto status = ShareFile(fd.get()); !status.ok()) return status;
    // Where a hole is, there would be SIGBUS if /dev/shm was full.
    if (auto status = AllocateFile(fd.get(), *size); !status.ok()) {
      return status;
    }
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
  struct statfs file_system;
  state->huge_pages = fstatfs(fd.get(), &file_system) == 0 &&
                      file_system.f_type == HUGETLBFS_MAGIC;
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
    state->reaps_all = may_have_name;
  }
  return Segment(std::move(state));
}

bool Segment::has_name() const { return HasName(fd()); }

absl::Status Segment::SealForReaders() const {
  if (fcntl(fd(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("sealing shm segment, fd ", fd(),
                   ": only an anonymous one that is not sealed yet can be (",
                   strerror(errno), ")"));
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
