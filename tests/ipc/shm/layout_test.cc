#include "ipc/shm/layout.h"

#include <array>
#include <cstdint>
#include <set>
#include <utility>

#include "gtest/gtest.h"

namespace ipc::shm {
namespace {

struct Plain {
  float a, b;
};
struct Pose {
  static constexpr uint64_t kLayoutId = LayoutId("test.Pose/1");
  float x, y;
};
struct NewerPose {
  static constexpr uint64_t kLayoutId = LayoutId("test.Pose/2");
  float x, y;
};
enum class Signed : int32_t {};

template <typename T>
constexpr uint64_t HashOf() {
  return internal::LayoutHash<T>("Value", 1);
}

TEST(LayoutTest, TellsTypesApart) {
  const std::set<uint64_t> hashes = {
      HashOf<bool>(),
      HashOf<char>(),
      HashOf<int8_t>(),
      HashOf<uint8_t>(),
      HashOf<int32_t>(),
      HashOf<uint32_t>(),
      HashOf<float>(),
      HashOf<int64_t>(),
      HashOf<uint64_t>(),
      HashOf<double>(),
      HashOf<Plain>(),
      HashOf<Pose>(),
      HashOf<NewerPose>(),
      HashOf<std::array<float, 2>>(),
      HashOf<std::array<float, 3>>(),
      HashOf<std::array<int32_t, 2>>(),
      HashOf<std::array<Pose, 2>>(),
      internal::LayoutHash<int32_t>("Array", 1),
      internal::LayoutHash<int32_t>("Array", 2),
  };
  EXPECT_EQ(hashes.size(), 19u);
}

TEST(LayoutTest, SameBytesSameLayout) {
  EXPECT_EQ(HashOf<long>(), HashOf<long long>());
  EXPECT_EQ(HashOf<Signed>(), HashOf<int32_t>());
}

// Written down from one run of gcc: every compiler must agree, and a change
// here is a change of the segment's ABI.
TEST(LayoutTest, NeverChanges) {
  EXPECT_EQ(LayoutId(""), 0xcbf29ce484222325);
  EXPECT_EQ(LayoutId("foobar"), 0x85944171f73967e8);  // from the FNV test suite
  EXPECT_EQ(HashOf<int32_t>(), 0xd45f88665a0520dd);
  EXPECT_EQ(HashOf<double>(), 0xa4593850e3e6a8e5);
  EXPECT_EQ(HashOf<Pose>(), 0x923a4207672a9975);
  EXPECT_EQ((HashOf<std::array<uint8_t, 16>>()), 0x4685eb509fc2f2cd);
}

}  // namespace
}  // namespace ipc::shm
