// The layout word: 64 bits at the start of each object in a segment, by which
// two programs find out that they mean different things by the same bytes.
//
// It is 0 until the first attach, which sets it by a compare-and-swap, and
// never changes then. It is a hash of what the object is ("Value", "Array"), of
// the size and alignment of T, of the number of elements, and of
// kLayoutIdOf<T>:
//
//   bool, integers, floats   the kind: boolean, signed, unsigned or floating
//   enums                    the kind of the underlying type
//   std::array<T, n>         n and kLayoutIdOf<T>
//   a class with a member    that member:
//     kLayoutId                struct Pose {
//                                static constexpr uint64_t kLayoutId =
//                                    ipc::shm::LayoutId("acme.Pose/2");
//                                double x, y, heading;
//                              };
//   any other class          the same for all: two structs of one size are then
//                            not told apart
//
// Change the name given to LayoutId whenever members change their meaning. For
// classes of others specialise kLayoutIdOf. Nothing here depends on the
// compiler or on the name of a type, so programs of gcc and clang agree.
#ifndef IPC_SHM_LAYOUT_H_
#define IPC_SHM_LAYOUT_H_

#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/shared_memory_safe.h"

namespace ipc::shm {
namespace internal {

// FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
inline constexpr uint64_t kFnvBasis = 0xcbf29ce484222325;
inline constexpr uint64_t kFnvPrime = 0x100000001b3;

constexpr uint64_t Hash(uint64_t hash, const char* text) {
  for (; *text != '\0'; ++text) {
    hash = (hash ^ static_cast<unsigned char>(*text)) * kFnvPrime;
  }
  return hash;
}

constexpr uint64_t Hash(uint64_t hash, uint64_t number) {
  for (int i = 0; i < 8; ++i, number >>= 8) {
    hash = (hash ^ (number & 0xff)) * kFnvPrime;
  }
  return hash;
}

}  // namespace internal

// An id for a struct: `name` should be unique and carry a version.
constexpr uint64_t LayoutId(const char* name) {
  return internal::Hash(internal::kFnvBasis, name);
}

template <typename T>
inline constexpr uint64_t kLayoutIdOf = LayoutId("class");
template <>
inline constexpr uint64_t kLayoutIdOf<bool> = LayoutId("boolean");
template <std::signed_integral T>
inline constexpr uint64_t kLayoutIdOf<T> =
    // Plain char is signed on some machines only.
    LayoutId(std::same_as<T, char> ? "character" : "signed");
template <std::unsigned_integral T>
requires(!std::same_as<T, bool>) inline constexpr uint64_t kLayoutIdOf<T> =
    LayoutId(std::same_as<T, char> ? "character" : "unsigned");
template <std::floating_point T>
inline constexpr uint64_t kLayoutIdOf<T> = LayoutId("floating");
template <typename T>
requires std::is_enum_v<T>
inline constexpr uint64_t kLayoutIdOf<T> =
    kLayoutIdOf<std::underlying_type_t<T>>;
template <typename T>
requires requires {
  { T::kLayoutId } -> std::convertible_to<uint64_t>;
}
inline constexpr uint64_t kLayoutIdOf<T> = T::kLayoutId;
template <typename T, size_t kSize>
inline constexpr uint64_t kLayoutIdOf<std::array<T, kSize>> =
    internal::Hash(internal::Hash(LayoutId("array"), kSize), kLayoutIdOf<T>);

namespace internal {

// Where an object ends before its data: the first 64 bytes of each are its own.
inline constexpr size_t kObjectHeaderSize = 64;

// The word for `count` elements of T in an object of this `kind`; never 0.
template <SharedMemorySafe T>
constexpr uint64_t LayoutHash(const char* kind, uint64_t count) {
  const uint64_t hash = Hash(
      Hash(Hash(Hash(Hash(kFnvBasis, kind), sizeof(T)), alignof(T)), count),
      kLayoutIdOf<T>);
  return hash == 0 ? 1 : hash;
}

// The word for an object without a T, in which `parameter` has to be the same
// for all; never 0.
constexpr uint64_t LayoutHash(const char* kind, uint64_t parameter) {
  const uint64_t hash = Hash(Hash(kFnvBasis, kind), parameter);
  return hash == 0 ? 1 : hash;
}

// What of an object is the same for all T.
struct ObjectShape {
  absl::string_view kind;  // for messages
  size_t element_size;
  size_t element_count;
  size_t size;  // of the whole object, in bytes
  uint64_t layout;
};

// The memory of an object at `offset` of the user area, its layout word set or
// checked. FailedPrecondition if it has another layout, does not fit, or, for a
// segment mapped for reading, if nobody has attached to it yet.
absl::StatusOr<std::byte*> AttachObject(const Segment& segment, size_t offset,
                                        const ObjectShape& shape);

}  // namespace internal
}  // namespace ipc::shm

#endif  // IPC_SHM_LAYOUT_H_
