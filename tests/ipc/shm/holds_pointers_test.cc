#include "ipc/shm/holds_pointers.h"

#include <array>
#include <bitset>
#include <chrono>
#include <complex>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/shm/shared_memory_safe.h"

namespace my {

struct Pointer {
  int* p;
};
struct Nested {
  int n;
  Pointer p;
};
struct Reference {
  int& n;
};
struct InAnOptional {
  int n;
  std::optional<int*> p;
};
struct Optional {
  std::optional<int> n;
  std::variant<int, double> v;
  char name[16];
};
struct InAnArray {
  int n[4];
  int* p[2];
};
struct InArrays {
  InAnArray a[2][2];
  int n;
};
struct Arrays {
  int n[2][2];
  Optional o[3];
};
struct BitFields {
  unsigned a : 3;
  unsigned b : 5;
  std::optional<int> n;
};
struct Mixed {
  char c;
  long double d;
  const bool b;
  std::complex<double> z;
};
struct Empty {};
struct Derived : Empty {
  int n;
};
struct DerivedFromPointer : Pointer {
  int n;
};
class Hidden {
 public:
  Hidden() = default;

 private:
  [[maybe_unused]] int n_ = 0;
  [[maybe_unused]] int* p_ = nullptr;
};
class HiddenNumbers {
  [[maybe_unused]] int n_ = 0;
  [[maybe_unused]] double d_ = 0;
};
struct Opaque {
  Opaque() {}  // NOLINT(modernize-use-equals-default): or it was constexpr
  int n;
};
union Union {
  int n;
  double d;
};
struct Tagged {
  int tag;
  union {
    int n;
    double d;
  };
};
struct Large {
  char bytes[1000000];
  int n;
};
struct Sixteen {
  int a, b, c, d, e, f, g, h, i, j, k, l, m, n, o;
  int* p;
};
struct Seventeen {
  int a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q;
};
struct SeventeenWithPointer {
  int a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p;
  int* q;
};
struct WithDefaults {
  int n = 3;
  int* p = nullptr;
};

}  // namespace my

template <>
inline constexpr bool ipc::shm::kHoldsPointers<my::Tagged> = false;

namespace ipc::shm {
namespace {

template <typename... T>
constexpr bool AllHold() {
  return (kHoldsPointers<T> && ...);
}
template <typename... T>
constexpr bool NoneHolds() {
  return (!kHoldsPointers<T> && ...);
}

static_assert(
    AllHold<my::Pointer, my::Nested, my::Reference, my::InAnOptional,
            my::InAnArray, my::InArrays, my::Sixteen, my::WithDefaults>(),
    "members of aggregates");
static_assert(AllHold<std::optional<int*>, std::variant<int*, int>,
                      std::pair<int, const char*>, std::tuple<int, void*>,
                      std::array<std::optional<const char*>, 2>>(),
              "arguments of templates");
static_assert(
    AllHold<std::coroutine_handle<>, std::vector<int>::iterator,
            std::function<void()>, std::unique_ptr<int>, std::string,
            my::Hidden, my::DerivedFromPointer, my::SeventeenWithPointer>(),
    "private members and bases");
static_assert(AllHold<my::Opaque, my::Union>(), "what cannot be seen into");

static_assert(
    NoneHolds<my::Optional, my::Arrays, my::BitFields, my::Mixed, my::Empty,
              my::Derived, my::HiddenNumbers, my::Large, my::Seventeen>());
static_assert(NoneHolds<std::optional<int>, std::variant<int, double>,
                        std::pair<int, bool>, std::tuple<int, char>,
                        std::array<int, 0>, std::monostate>());
static_assert(
    NoneHolds<std::complex<double>, std::complex<float>, std::bitset<70>,
              std::chrono::nanoseconds, std::chrono::system_clock::time_point,
              absl::Duration, absl::Time, absl::CivilSecond>());
static_assert(NoneHolds<my::Tagged>(), "as declared above");

static_assert(SharedMemorySafe<my::Optional> && SharedMemorySafe<my::Tagged> &&
              SharedMemorySafe<absl::Duration>);
static_assert(!SharedMemorySafe<my::Nested> &&
              !SharedMemorySafe<std::coroutine_handle<>> &&
              !SharedMemorySafe<std::vector<int>::iterator>);

TEST(HoldsPointersTest, IsDecidedByTheCompiler) { SUCCEED(); }

}  // namespace
}  // namespace ipc::shm
