// SharedMemorySafe<T>: whether the bytes of a T mean the same in another
// process. It is what Value, Array and mqueue::TypedQueue ask of their T:
//
// - trivially copyable and destructible, copyable and default-constructible;
// - no pointer, reference, member pointer or C array (take std::array), and not
//   const or volatile;
// - at most 64-byte aligned.
//
// Pointers are also found in members, and in those of members. What cannot be
// seen into, such as a union, is refused as well, until it is declared:
//
//   template <>
//   inline constexpr bool ipc::shm::kHoldsPointers<my::Tagged> = false;
//
// See holds_pointers.h for what can be seen. An address in a uintptr_t is a
// number like any other.
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

#include <concepts>
#include <type_traits>

#include "ipc/shm/holds_pointers.h"

namespace ipc::shm {

// One concept a reason, so that the compiler's message is a sentence.
template <typename T>
concept IsAnObjectWithoutQualifiers =
    std::is_object_v<T> && std::same_as<T, std::remove_cv_t<T>>;
template <typename T>
concept IsNotACArray = !std::is_array_v<T>;
template <typename T>
concept IsKnownToHoldNoPointers = !kHoldsPointers<T>;
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
    IsTriviallyCopyableAndDestructible<T> &&
    IsCopyableAndDefaultConstructible<T> && IsKnownToHoldNoPointers<T> &&
    IsAtMost64ByteAligned<T>;

}  // namespace ipc::shm

#endif  // IPC_SHM_SHARED_MEMORY_SAFE_H_
