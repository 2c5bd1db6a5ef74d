// How the locks and their kin are placed in a segment: what all of them have in
// common, written once.
#ifndef IPC_SHM_PLACED_H_
#define IPC_SHM_PLACED_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/layout.h"
#include "ipc/shm/segment.h"

namespace ipc::shm::internal {

// `Derived` has SizeBytes(shape...), a multiple of Segment::kAlignment, and
// Attach(segment, offset, shape...); the shape, such as the number of parties
// of a Barrier, has to be the same for all who attach.
template <typename Derived>
class Placed {
 public:
  // One in an anonymous segment of its own.
  template <typename... Shape>
  static absl::StatusOr<Derived> CreateAnonymous(Shape... shape) {
    absl::StatusOr<Segment> segment =
        Segment::CreateAnonymous(Derived::SizeBytes(shape...));
    if (!segment.ok()) return segment.status();
    return Derived::Attach(*std::move(segment), 0, shape...);
  }
  // The one that another process created so; errors as Segment::FromFd and
  // Attach.
  template <typename... Shape>
  static absl::StatusOr<Derived> FromFd(UniqueFd fd, Shape... shape) {
    return FromFd(std::move(fd), Access::kReadWrite, shape...);
  }
  // The same; for kRead, if it can only be looked at, as Event::Wait does.
  template <typename... Shape>
  static absl::StatusOr<Derived> FromFd(UniqueFd fd, Access access,
                                        Shape... shape) {
    absl::StatusOr<Segment> segment = Segment::FromFd(std::move(fd), access);
    if (!segment.ok()) return segment.status();
    return Derived::Attach(*std::move(segment), 0, shape...);
  }

  // One in a segment of its own under a name, and the one that has it; errors
  // as Segment::Create and Open. Segment::Unlink removes the name.
  template <typename... Shape>
  static absl::StatusOr<Derived> Create(absl::string_view name,
                                        Shape... shape) {
    // Before it has its name, so that what fails leaves none.
    absl::StatusOr<Derived> derived = absl::UnknownError("not attached");
    absl::StatusOr<Segment> segment = Segment::Create(
        name, Derived::SizeBytes(shape...), [&](const Segment& unnamed) {
          derived = Derived::Attach(unnamed, 0, shape...);
          return derived.status();
        });
    if (!segment.ok()) return segment.status();
    return derived;
  }
  template <typename... Shape>
  static absl::StatusOr<Derived> Open(absl::string_view name, Shape... shape) {
    return Open(name, Access::kReadWrite, shape...);
  }
  template <typename... Shape>
  static absl::StatusOr<Derived> Open(absl::string_view name, Access access,
                                      Shape... shape) {
    absl::StatusOr<Segment> segment = Segment::Open(name, access);
    if (!segment.ok()) return segment.status();
    return Derived::Attach(*std::move(segment), 0, shape...);
  }

  // Owned by the segment; for other processes' FromFd if that holds nothing but
  // this.
  int fd() const { return segment_.fd(); }
  const Segment& segment() const { return segment_; }

 protected:
  Placed(Segment segment, std::byte* object)
      : segment_(std::move(segment)), object_(object) {}

  // The memory of a Derived at `offset`, checked.
  static absl::StatusOr<std::byte*> Find(const Segment& segment, size_t offset,
                                         size_t size, absl::string_view kind,
                                         uint64_t layout) {
    return AttachObject(segment, offset, {kind, size, 1, size, layout});
  }

  std::byte* object() const { return object_; }

 private:
  Segment segment_;
  std::byte* object_;
};

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_PLACED_H_
