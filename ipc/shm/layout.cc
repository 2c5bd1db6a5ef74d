#include "ipc/shm/layout.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace ipc::shm::internal {
namespace {

static_assert(std::atomic<uint64_t>::is_always_lock_free &&
              sizeof(std::atomic<uint64_t>) == 8);

std::string Name(const Segment& segment, size_t offset,
                 const ObjectShape& shape) {
  return absl::StrCat(shape.kind, " of ", shape.element_count, " x ",
                      shape.element_size, " bytes at offset ", offset,
                      " of shm segment, fd ", segment.fd());
}

}  // namespace

absl::StatusOr<std::byte*> AttachObject(const Segment& segment, size_t offset,
                                        const ObjectShape& shape) {
  if (offset % Segment::kAlignment != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(segment, offset, shape),
                     ": offsets are multiples of ", Segment::kAlignment));
  }
  const absl::Span<std::byte> bytes = segment.bytes();
  if (offset > bytes.size() || shape.size > bytes.size() - offset) {
    return absl::FailedPreconditionError(absl::StrCat(
        Name(segment, offset, shape), " takes ", shape.size,
        " bytes, but the user area has ", bytes.size(),
        ": create it larger, or attach with the type it was created for"));
  }
  std::byte* const object = bytes.data() + offset;
  auto& word = *reinterpret_cast<std::atomic<uint64_t>*>(object);
  // Relaxed is enough: the word publishes nothing, as what follows it is valid
  // from the beginning.
  uint64_t layout = word.load(std::memory_order_relaxed);
  if (layout == 0 && segment.writable() &&
      word.compare_exchange_strong(layout, shape.layout,
                                   std::memory_order_relaxed)) {
    layout = shape.layout;
  }
  if (layout == shape.layout) return object;
  if (layout == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        Name(segment, offset, shape),
        ": nobody has attached to it for writing yet, so its layout is not "
        "known; attach in its writer first"));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      Name(segment, offset, shape), " has layout 0x",
      absl::Hex(shape.layout, absl::kZeroPad16), ", but what is there has 0x",
      absl::Hex(layout, absl::kZeroPad16),
      ": attach with the type, size and kLayoutId it was created for"));
}

}  // namespace ipc::shm::internal
