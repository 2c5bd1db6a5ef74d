// Shared memory from the kernel: anonymous files and their mappings.
//
// Example:
//
//   absl::StatusOr<UniqueFd> fd = CreateMemory("scores", 4096);
//   absl::StatusOr<Mapping> mapping = Mapping::Create(fd->get(), 4096);
//   std::memset(mapping->data(), 0, mapping->size());
//
// A file from CreateMemory can neither shrink nor grow, so whoever maps it
// never meets SIGBUS, whatever another process does with the descriptor, as
// long as the machine has memory: a hole that a peer punches is filled again at
// the next access. That is not so with CreateHugeMemory. See memfd_create(2)
// and "File sealing" in fcntl(2).
#ifndef IPC_BASE_MEMORY_H_
#define IPC_BASE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/base/unique_fd.h"

namespace ipc {

// The first 16 bytes of every segment that Parley lays out, by which a process
// that was handed a descriptor tells what it is.
enum class SegmentKind : uint32_t {
  kShm = 1,     // ipc::shm::Segment
  kMqueue = 2,  // ipc::mqueue::Queue
  kRing = 3,    // ipc::pipe::RingSender, RingReceiver
};
struct SegmentPrefix {
  static constexpr uint64_t kMagic = 0x0059454c52415000;  // "\0PARLEY\0"

  uint64_t magic;
  SegmentKind kind;
  uint16_t abi_major;  // other majors cannot be opened
  uint16_t abi_minor;  // higher minors can
};
static_assert(sizeof(SegmentPrefix) == 16);

// Reads the prefix of the file behind `fd`, whose offset stays as it is.
// InvalidArgument if that is not a segment of Parley's.
absl::StatusOr<SegmentPrefix> ReadSegmentPrefix(int fd);

// ResourceExhausted if the machine does not have `size` bytes of memory. The
// kernel does not compare: it allocates page after page, and once there are
// none left it kills processes, mostly other people's. `name` is for the
// message.
absl::Status CheckFitsMachine(absl::string_view name, size_t size);

// An anonymous file of `size` bytes, all zero, close-on-exec, its memory
// allocated and its size sealed. ResourceExhausted if the kernel has none left,
// or at once if the machine does not have that much; in between the kernel may
// well kill processes to find it, so keep sizes from strangers within bounds.
// `name` is for /proc/PID/maps only and need not be unique.
absl::StatusOr<UniqueFd> CreateMemory(absl::string_view name, size_t size);

// The same in huge pages, of which it takes as many as it needs, whole ones: so
// it may be larger. Unavailable if the machine keeps none free (see
// vm.nr_hugepages in Documentation/admin-guide/mm/hugetlbpage.rst of Linux).
// Whoever may write to it can punch a hole (fallocate(2)): a page that is then
// touched is SIGBUS if the machine has none free. Only for trusted peers.
absl::StatusOr<UniqueFd> CreateHugeMemory(absl::string_view name, size_t size);

// The size in bytes of the file behind `fd`. FailedPrecondition if it is an
// anonymous file whose size is not sealed: its owner could shrink it under us.
// (That of a named one can, too; see named_memory.h for who that is.)
absl::StatusOr<size_t> SizeOfMemory(int fd);

// Owns a MAP_SHARED mapping from offset 0. Move-only; unmaps when destroyed.
class Mapping {
 public:
  enum class Access { kRead, kReadWrite };

  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Mapping();

  // Maps the first `size` bytes of `fd`, which may be closed afterwards.
  static absl::StatusOr<Mapping> Create(int fd, size_t size,
                                        Access access = Access::kReadWrite);

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  Mapping(std::byte* data, size_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ipc

#endif  // IPC_BASE_MEMORY_H_
