#include "ipc/shm/shared_memory_safe.h"

#include <array>
#include <atomic>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"

namespace my {

struct Point {
  double x, y;
};
struct WithDefaults {
  int answer = 42;
};
struct WithArray {
  int numbers[4];
};
struct View {
  const int* first;
};
struct Virtual {
  virtual void F();
};
struct WithDestructor {
  ~WithDestructor();
};
struct WithoutDefault {
  explicit WithoutDefault(int);
};
struct MoveOnly {
  MoveOnly(MoveOnly&&) = default;
  MoveOnly& operator=(MoveOnly&&) = default;
};
struct alignas(64) CacheLine {
  int n;
};
struct alignas(128) TwoCacheLines {
  int n;
};
enum class Color : uint8_t { kRed };

}  // namespace my

template <>
inline constexpr bool ipc::shm::kHoldsPointers<my::View> = true;

namespace ipc::shm {
namespace {

template <typename... T>
constexpr bool AllSafe() {
  return (SharedMemorySafe<T> && ...);
}
template <typename... T>
constexpr bool NoneSafe() {
  return (!SharedMemorySafe<T> && ...);
}

static_assert(
    AllSafe<bool, char, int8_t, uint64_t, float, double, std::byte>());
static_assert(AllSafe<my::Point, my::WithDefaults, my::WithArray, my::Color,
                      my::CacheLine, std::array<my::Point, 3>>());

static_assert(NoneSafe<int*, const char*, void*, void (*)(), std::nullptr_t,
                       int my::Point::*, void (my::Virtual::*)()>(),
              "pointers");
static_assert(NoneSafe<int&, int&&, const int, volatile int, void, void()>(),
              "not plain objects");
static_assert(NoneSafe<int[3], int* [3], std::array<int*, 3>,
                       std::array<std::array<char*, 2>, 3>>(),
              "C arrays, arrays of pointers");
static_assert(NoneSafe<std::string, std::vector<int>, std::unique_ptr<int>,
                       std::shared_ptr<int>, std::function<void()>>(),
              "what owns memory");
static_assert(NoneSafe<absl::string_view, std::string_view, absl::Span<int>,
                       std::span<int>, std::reference_wrapper<int>, my::View>(),
              "views");
static_assert(NoneSafe<my::Virtual, my::WithDestructor, my::WithoutDefault,
                       my::MoveOnly, std::atomic<int>>(),
              "classes that are more than their bytes");
static_assert(NoneSafe<my::TwoCacheLines>(), "alignment");

TEST(SharedMemorySafeTest, IsDecidedByTheCompiler) { SUCCEED(); }

}  // namespace
}  // namespace ipc::shm
