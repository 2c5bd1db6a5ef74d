// kHoldsPointers<T>: whether a T may hold an address, which means nothing in
// another process. Part of SharedMemorySafe; see shared_memory_safe.h.
//
// What is looked at:
// - of an aggregate of up to 16 members: each member, and theirs, also those of
//   its C arrays;
// - of std::array, pair, tuple, optional and variant: their arguments;
// - of any other class, such as one with private members or with bases: whether
//   the compiler makes one of plain bytes in a constant (std::bit_cast), which
//   it refuses if there is a pointer in it. It also refuses unions, and classes
//   that have no constexpr constructor but those that copy; gcc 12 overlooks
//   arrays of pointers.
// What cannot be seen into counts as if it held one. Whoever knows better says
// so, of a type of one's own or another's:
//
//   template <>
//   inline constexpr bool ipc::shm::kHoldsPointers<my::Tagged> = false;
//
// before the first use of SharedMemorySafe<my::Tagged>. That is also the way
// out where the compiler cannot take an aggregate apart and says so: one with
// an anonymous union.
#ifndef IPC_SHM_HOLDS_POINTERS_H_
#define IPC_SHM_HOLDS_POINTERS_H_

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

namespace ipc::shm {
namespace internal {

template <typename T>
constexpr bool MayHoldPointers();

}  // namespace internal

template <typename T>
inline constexpr bool kHoldsPointers = internal::MayHoldPointers<T>();
template <typename T, size_t kSize>
inline constexpr bool kHoldsPointers<std::array<T, kSize>> =
    kHoldsPointers<std::remove_all_extents_t<T>>;
template <typename T>
inline constexpr bool kHoldsPointers<std::optional<T>> = kHoldsPointers<T>;
template <typename First, typename Second>
inline constexpr bool kHoldsPointers<std::pair<First, Second>> =
    kHoldsPointers<First> || kHoldsPointers<Second>;
template <typename... T>
inline constexpr bool kHoldsPointers<std::tuple<T...>> = (kHoldsPointers<T> ||
                                                          ...);
template <typename... T>
inline constexpr bool kHoldsPointers<std::variant<T...>> = (kHoldsPointers<T> ||
                                                            ...);

namespace internal {

template <typename T>
inline constexpr bool kMemberHoldsPointers =
    kHoldsPointers<std::remove_cv_t<std::remove_all_extents_t<T>>>;
template <typename T>
inline constexpr bool kMemberHoldsPointers<T&> = true;
template <typename T>
inline constexpr bool kMemberHoldsPointers<T&&> = true;

template <typename... T>
struct Members {
  static constexpr bool kHoldPointers = (kMemberHoldsPointers<T> || ...);
};

// How many members an aggregate has, each of which can be made of {}; one more
// than kMostMembers if there are more, 0 if that cannot be known.
inline constexpr int kMostMembers = 16;
template <typename T>
constexpr int CountMembers() {
  if constexpr (requires {
                  T{{}, {}, {}, {}, {}, {}, {}, {}, {},
                    {}, {}, {}, {}, {}, {}, {}, {}};
                }) {
    return 17;
  } else if constexpr (requires {
                         T{{}, {}, {}, {}, {}, {}, {}, {},
                           {}, {}, {}, {}, {}, {}, {}, {}};
                       }) {
    return 16;
  } else if constexpr (requires {
                         T{{}, {}, {}, {}, {}, {}, {}, {},
                           {}, {}, {}, {}, {}, {}, {}};
                       }) {
    return 15;
  } else if constexpr (requires {
                         T{{}, {}, {}, {}, {}, {}, {},
                           {}, {}, {}, {}, {}, {}, {}};
                       }) {
    return 14;
  } else if constexpr (requires {
                         T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
                       }) {
    return 13;
  } else if constexpr (requires {
                         T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
                       }) {
    return 12;
  } else if constexpr (requires {
                         T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
                       }) {
    return 11;
  } else if constexpr (requires {
                         T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
                       }) {
    return 10;
  } else if constexpr (requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}}; }) {
    return 9;
  } else if constexpr (requires { T{{}, {}, {}, {}, {}, {}, {}, {}}; }) {
    return 8;
  } else if constexpr (requires { T{{}, {}, {}, {}, {}, {}, {}}; }) {
    return 7;
  } else if constexpr (requires { T{{}, {}, {}, {}, {}, {}}; }) {
    return 6;
  } else if constexpr (requires { T{{}, {}, {}, {}, {}}; }) {
    return 5;
  } else if constexpr (requires { T{{}, {}, {}, {}}; }) {
    return 4;
  } else if constexpr (requires { T{{}, {}, {}}; }) {
    return 3;
  } else if constexpr (requires { T{{}, {}}; }) {
    return 2;
  } else if constexpr (requires { T{{}}; }) {
    return 1;
  } else {
    return 0;
  }
}

// Their types. After "Counting fields" and "structured bindings" of Boost.PFR
// (https://www.boost.org/doc/libs/1_81_0/doc/html/boost_pfr.html); but as each
// {} stands for one member, C arrays are one, too.
template <typename T>
constexpr auto MembersOf(T& value) {
  constexpr int kCount = CountMembers<T>();
  if constexpr (kCount == 0) {
    return Members<>();
  } else if constexpr (kCount == 1) {
    auto& [a] = value;
    return Members<decltype(a)>();
  } else if constexpr (kCount == 2) {
    auto& [a, b] = value;
    return Members<decltype(a), decltype(b)>();
  } else if constexpr (kCount == 3) {
    auto& [a, b, c] = value;
    return Members<decltype(a), decltype(b), decltype(c)>();
  } else if constexpr (kCount == 4) {
    auto& [a, b, c, d] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d)>();
  } else if constexpr (kCount == 5) {
    auto& [a, b, c, d, e] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e)>();
  } else if constexpr (kCount == 6) {
    auto& [a, b, c, d, e, f] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e), decltype(f)>();
  } else if constexpr (kCount == 7) {
    auto& [a, b, c, d, e, f, g] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e), decltype(f), decltype(g)>();
  } else if constexpr (kCount == 8) {
    auto& [a, b, c, d, e, f, g, h] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e), decltype(f), decltype(g), decltype(h)>();
  } else if constexpr (kCount == 9) {
    auto& [a, b, c, d, e, f, g, h, i] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e), decltype(f), decltype(g), decltype(h),
                   decltype(i)>();
  } else if constexpr (kCount == 10) {
    auto& [a, b, c, d, e, f, g, h, i, j] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e), decltype(f), decltype(g), decltype(h),
                   decltype(i), decltype(j)>();
  } else if constexpr (kCount == 11) {
    auto& [a, b, c, d, e, f, g, h, i, j, k] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e), decltype(f), decltype(g), decltype(h),
                   decltype(i), decltype(j), decltype(k)>();
  } else if constexpr (kCount == 12) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e), decltype(f), decltype(g), decltype(h),
                   decltype(i), decltype(j), decltype(k), decltype(l)>();
  } else if constexpr (kCount == 13) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e), decltype(f), decltype(g), decltype(h),
                   decltype(i), decltype(j), decltype(k), decltype(l),
                   decltype(m)>();
  } else if constexpr (kCount == 14) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e), decltype(f), decltype(g), decltype(h),
                   decltype(i), decltype(j), decltype(k), decltype(l),
                   decltype(m), decltype(n)>();
  } else if constexpr (kCount == 15) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e), decltype(f), decltype(g), decltype(h),
                   decltype(i), decltype(j), decltype(k), decltype(l),
                   decltype(m), decltype(n), decltype(o)>();
  } else if constexpr (kCount == 16) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = value;
    return Members<decltype(a), decltype(b), decltype(c), decltype(d),
                   decltype(e), decltype(f), decltype(g), decltype(h),
                   decltype(i), decltype(j), decltype(k), decltype(l),
                   decltype(m), decltype(n), decltype(o), decltype(p)>();
  }
}

template <typename T>
struct AnyBaseOf {
  template <typename Base,
            typename = std::enable_if_t<std::is_base_of_v<Base, T> &&
                                        !std::is_same_v<Base, T>>>
  operator Base() const;  // NOLINT(google-explicit-constructor): it is to be
};
template <typename T>
concept HasBase = requires {
  T{AnyBaseOf<T>()};
};

template <typename T>
constexpr bool CanBeTakenApart() {
  if constexpr (!std::is_aggregate_v<T> || std::is_union_v<T>) {
    return false;
  } else if constexpr (std::is_empty_v<T> || HasBase<T>) {
    return false;
  } else {
    return CountMembers<T>() > 0 && CountMembers<T>() <= kMostMembers;
  }
}

template <typename T>
constexpr bool MakeOfBytes() {
  (void)std::bit_cast<T>(std::array<std::byte, sizeof(T)>{});
  return true;
}
template <typename T>
concept CanBeMadeOfBytes = std::is_trivially_copyable_v<T> && requires {
  typename std::bool_constant<MakeOfBytes<T>()>;
};

// Such as std::complex, which clang 14 does not make of bytes: nothing else has
// room in it.
template <typename T>
concept IsComplexNumber = std::floating_point<typename T::value_type> &&
                              sizeof(T) == 2 * sizeof(typename T::value_type) &&
                          requires(T number) {
  { number.real() } -> std::same_as<typename T::value_type>;
  { number.imag() } -> std::same_as<typename T::value_type>;
};

template <typename T>
constexpr bool MayHoldPointers() {
  if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
    return false;
  } else if constexpr (!std::is_class_v<T>) {
    return true;
  } else if constexpr (CanBeTakenApart<T>()) {
    return decltype(MembersOf(std::declval<T&>()))::kHoldPointers;
  } else {
    return !CanBeMadeOfBytes<T> && !IsComplexNumber<T>;
  }
}

}  // namespace internal
}  // namespace ipc::shm

#endif  // IPC_SHM_HOLDS_POINTERS_H_
