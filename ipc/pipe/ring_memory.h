// The segment of a ring: how it is created, checked and mapped. Its data is
// mapped twice in a row, so that what crosses the end of it is contiguous, too.
//
// Thread safety: a value type; const members from any thread.
#ifndef IPC_PIPE_RING_MEMORY_H_
#define IPC_PIPE_RING_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/ring_layout.h"

namespace ipc::pipe::internal {

// A new segment for at least so many bytes of records.
absl::StatusOr<UniqueFd> CreateRingMemory(uint64_t capacity_bytes);

// Move-only; unmaps when destroyed.
class RingMemory {
 public:
  RingMemory() = default;
  RingMemory(RingMemory&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)),
        header_size_(other.header_size_),
        capacity_(other.capacity_) {}
  RingMemory& operator=(RingMemory&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(header_size_, other.header_size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  ~RingMemory();

  // `fd` may be anything, and may be closed afterwards. InvalidArgument if it
  // is not a ring, FailedPrecondition if it is one of another version or one
  // whose size is not sealed, DataLoss if its header makes no sense.
  static absl::StatusOr<RingMemory> Map(int fd);

  RingHeader& header() const { return *reinterpret_cast<RingHeader*>(base_); }
  // 2 * capacity() bytes; each byte is there twice.
  std::byte* data() const { return base_ + header_size_; }
  // This process's own copy, checked.
  uint64_t capacity() const { return capacity_; }

 private:
  RingMemory(std::byte* base, size_t header_size, uint64_t capacity)
      : base_(base), header_size_(header_size), capacity_(capacity) {}

  std::byte* base_ = nullptr;
  size_t header_size_ = 0;
  uint64_t capacity_ = 0;
};

}  // namespace ipc::pipe::internal

#endif  // IPC_PIPE_RING_MEMORY_H_
