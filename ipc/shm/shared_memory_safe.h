// SharedMemorySafe<T>: whether the bytes of a T mean the same in another
// process. It is what Value, Array and mqueue::TypedQueue ask of their T:
//
// - trivially copyable and destructible, copyable and default-constructible;
// - no pointer, reference, member pointer or C array (take std::array), and not
//   const or volatile;
// - at most 64-byte aligned.
//
// A struct may still hide a pointer in a member, and no compiler can tell.
// Known view types are refused; declare your own so:
//
//   template <>
//   inline constexpr bool ipc::shm::kHoldsPointers<my::View> = true;
//
// Mind also that
// - all bytes zero must be a valid T, for that is a Value's first state;
// - padding bytes are copied too, and whatever they hold is seen by the others:
//   give secrets no padding to hide in, or none of it;
// - a peer one does not trust can store any bits at all. A bool is made true or
//   false again, but not in the span of an Array's Guard; range-check an enum
//   or a struct.
#ifndef IPC_SHM_SHARED_MEMORY_SAFE_H_
#define IPC_SHM_SHARED_MEMORY_SAFE_H_

#include <array>
#include <concepts>
#include <cstddef>
#include <functional>
#include <span>
#include <string_view>
#include <type_traits>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace ipc::shm {

template <typename T>
inline constexpr bool kHoldsPointers = false;
template <>
inline constexpr bool kHoldsPointers<absl::string_view> = true;
template <typename T>
inline constexpr bool kHoldsPointers<absl::Span<T>> = true;
template <typename C, typename Traits>
inline constexpr bool kHoldsPointers<std::basic_string_view<C, Traits>> = true;
template <typename T, size_t kExtent>
inline constexpr bool kHoldsPointers<std::span<T, kExtent>> = true;
template <typename T>
inline constexpr bool kHoldsPointers<std::reference_wrapper<T>> = true;
template <typename T>
inline constexpr bool kHoldsPointers<T*> = true;
template <typename C, typename T>
inline constexpr bool kHoldsPointers<T C::*> = true;
template <>
inline constexpr bool kHoldsPointers<std::nullptr_t> = true;
template <typename T, size_t kSize>
inline constexpr bool kHoldsPointers<std::array<T, kSize>> = kHoldsPointers<T>;

// One concept a reason, so that the compiler's message is a sentence.
template <typename T>
concept IsAnObjectWithoutQualifiers =
    std::is_object_v<T> && std::same_as<T, std::remove_cv_t<T>>;
template <typename T>
concept IsNotACArray = !std::is_array_v<T>;
template <typename T>
concept HoldsNoPointers = !kHoldsPointers<std::remove_cvref_t<T>>;
template <typename T>
concept IsTriviallyCopyableAndDestructible =
    std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>;
template <typename T>
concept IsCopyableAndDefaultConstructible =
    std::copyable<T> && std::default_initializable<T>;
template <typename T>
concept IsAtMost64ByteAligned = alignof(T) <= 64;

template <typename T>
concept SharedMemorySafe = IsAnObjectWithoutQualifiers<T> && IsNotACArray<T> &&
    HoldsNoPointers<T> && IsTriviallyCopyableAndDestructible<T> &&
    IsCopyableAndDefaultConstructible<T> && IsAtMost64ByteAligned<T>;

}  // namespace ipc::shm

#endif  // IPC_SHM_SHARED_MEMORY_SAFE_H_
