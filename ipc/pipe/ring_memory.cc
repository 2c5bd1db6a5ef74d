#include "ipc/pipe/ring_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/base/memory.h"
#include "ipc/base/posix_error.h"

namespace ipc::pipe::internal {
namespace {

constexpr uint64_t kPopulatedCapacity = 64 << 20;

uint64_t PageSize() { return static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }

// The constants, which lie before the words that change.
struct Constants {
  SegmentPrefix prefix;
  uint64_t total_size;
  uint64_t capacity;
  uint32_t header_size;
  uint32_t byte_order;
  uint32_t word_size;
  uint32_t reserved;
  uint64_t features;
};
static_assert(sizeof(Constants) == 56);
static_assert(offsetof(Constants, features) == offsetof(RingHeader, features));

absl::StatusOr<Constants> ReadConstants(int fd) {
  const absl::StatusOr<SegmentPrefix> prefix = ReadSegmentPrefix(fd);
  if (!prefix.ok()) return prefix.status();
  if (prefix->kind != SegmentKind::kRing) {
    return absl::InvalidArgumentError(
        absl::StrCat("fd ", fd, " is a Parley segment of kind ",
                     static_cast<uint32_t>(prefix->kind), ", not a ring (kind ",
                     static_cast<uint32_t>(SegmentKind::kRing),
                     "): open it with the library that created it"));
  }
  if (prefix->abi_major != RingHeader::kAbiMajor) {
    return absl::FailedPreconditionError(absl::StrCat(
        "ring, fd ", fd, ", has layout version ", prefix->abi_major, ".",
        prefix->abi_minor, ", this program knows ", RingHeader::kAbiMajor,
        ": build both from the same release"));
  }
  Constants constants;
  const ssize_t n =
      RetryOnEintr([&] { return pread(fd, &constants, sizeof(constants), 0); });
  if (n < 0) return PosixError(errno, absl::StrCat("reading ring, fd ", fd));
  if (n != sizeof(constants)) {
    return absl::DataLossError(
        absl::StrCat("ring, fd ", fd, ", has ", n, " bytes of header"));
  }
  return constants;
}

}  // namespace

absl::StatusOr<UniqueFd> CreateRingMemory(uint64_t capacity_bytes) {
  if (capacity_bytes > kMaxRingCapacity) {
    return absl::InvalidArgumentError(
        absl::StrCat("creating a ring of ", capacity_bytes, " bytes: at most ",
                     kMaxRingCapacity));
  }
  const uint64_t page = PageSize();
  const uint64_t capacity =
      std::bit_ceil(std::max({capacity_bytes, kMinRingCapacity, page}));
  const uint64_t total = page + capacity;
  absl::StatusOr<UniqueFd> fd = CreateMemory("parley-ring", total);
  if (!fd.ok()) return fd;
  const absl::StatusOr<Mapping> mapping = Mapping::Create(fd->get(), page);
  if (!mapping.ok()) return mapping.status();
  // The words are zero already, and so they are again.
  auto* const header = new (mapping->data()) RingHeader();
  header->prefix = {.magic = SegmentPrefix::kMagic,
                    .kind = SegmentKind::kRing,
                    .abi_major = RingHeader::kAbiMajor,
                    .abi_minor = RingHeader::kAbiMinor};
  header->total_size = total;
  header->capacity = capacity;
  header->header_size = static_cast<uint32_t>(page);
  header->byte_order = RingHeader::kByteOrder;
  header->word_size = sizeof(void*);
  return fd;
}

absl::StatusOr<RingMemory> RingMemory::Map(int fd) {
  const absl::StatusOr<size_t> size = SizeOfMemory(fd);
  if (!size.ok()) return size.status();
  const absl::StatusOr<Constants> header = ReadConstants(fd);
  if (!header.ok()) return header.status();
  // Unlike SizeOfMemory, for which the size of a named file is fine as it is.
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("ring, fd ", fd, ": its size is not sealed"));
  }
  const uint64_t page = PageSize();
  if (header->byte_order != RingHeader::kByteOrder ||
      header->word_size != sizeof(void*) || header->features != 0 ||
      header->header_size != page) {
    return absl::FailedPreconditionError(absl::StrCat(
        "ring, fd ", fd, ", was made for word size ", header->word_size,
        ", byte order ", absl::Hex(header->byte_order), ", features ",
        absl::Hex(header->features), ", pages of ", header->header_size,
        ": build both programs alike"));
  }
  const uint64_t capacity = header->capacity;
  if (header->total_size != *size || capacity < page ||
      capacity > kMaxRingCapacity || !std::has_single_bit(capacity) ||
      *size != page + capacity) {
    return absl::DataLossError(
        absl::StrCat("ring, fd ", fd, ", of ", *size, " bytes claims ",
                     header->total_size, " bytes, ", capacity,
                     " of data: its header is corrupt, create it anew"));
  }
  // No fault later on, unless that takes longer than some have for attaching.
  const int populate = capacity <= kPopulatedCapacity ? MAP_POPULATE : 0;
  // The addresses first, for all three mappings; then each in its place.
  void* const addresses =
      mmap(nullptr, page + 2 * capacity, PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (addresses == MAP_FAILED) {
    return PosixError(errno, absl::StrCat("mapping ring, fd ", fd));
  }
  RingMemory memory(static_cast<std::byte*>(addresses), page, capacity);
  const auto map = [&](std::byte* to, uint64_t bytes, uint64_t from) {
    return mmap(to, bytes, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_FIXED | populate, fd,
                static_cast<off_t>(from)) != MAP_FAILED;
  };
  if (!map(memory.base_, page + capacity, 0) ||
      !map(memory.data() + capacity, capacity, page)) {
    return PosixError(errno, absl::StrCat("mapping ring, fd ", fd));
  }
  return memory;
}

RingMemory::~RingMemory() {
  if (base_ != nullptr) munmap(base_, header_size_ + 2 * capacity_);
}

}  // namespace ipc::pipe::internal
