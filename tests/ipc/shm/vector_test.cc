#include "ipc/shm/vector.h"

#include <cstdint>
#include <numeric>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/arena.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Numbers = Vector<int64_t>;

TEST(VectorTest, GrowsAndShrinks) {
  Arena arena = *Arena::CreateAnonymous(1 << 16);
  std::vector<int64_t> expected(1000);
  std::iota(expected.begin(), expected.end(), 0);
  {
    auto guard = arena.Lock();
    auto numbers = Numbers::Create(*guard);
    ASSERT_THAT(numbers, IsOk());
    EXPECT_THAT(numbers->span(), IsEmpty());
    ASSERT_THAT(guard->SetRoot(numbers->pointer()), IsOk());
    for (int64_t n : expected) ASSERT_THAT(numbers->PushBack(n), IsOk()) << n;
    EXPECT_THAT(numbers->span(), ElementsAreArray(expected));
  }
  {
    auto guard = arena.Lock();
    auto numbers = Numbers::At(*guard, *guard->root<Numbers::Header>());
    ASSERT_THAT(numbers, IsOk());
    EXPECT_THAT(numbers->span(), ElementsAreArray(expected));
    // The smaller arrays are free again.
    EXPECT_EQ(guard->usage()->used_blocks, 2u);
    while (numbers->size() > 3) ASSERT_THAT(numbers->PopBack(), IsOk());
    auto some = numbers->Change(1, 2);
    ASSERT_THAT(some, IsOk());
    (*some)[0] = 10;
    EXPECT_THAT(numbers->span(), ElementsAre(0, 10, 2));
    EXPECT_THAT(numbers->Change(2, 2),
                StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("")));
    guard->RollBack();
    EXPECT_THAT(numbers->span(), ElementsAreArray(expected));
    ASSERT_THAT(numbers->Destroy(), IsOk());
    EXPECT_EQ(guard->usage()->used_blocks, 0u);
  }
}

// What fails for want of room, in the arena or the log, changes nothing.
TEST(VectorTest, AFullArenaOrLogChangesNothing) {
  for (const size_t undo : {256, 1 << 16}) {
    Arena arena = *Arena::CreateAnonymous(2048, undo);
    const auto at = [&] {
      auto guard = arena.Lock();
      return Numbers::Create(*guard)->pointer();
    }();
    size_t size = 0;
    int full_logs = 0;
    while (true) {
      auto guard = arena.Lock();
      auto numbers = Numbers::At(*guard, at);
      ASSERT_THAT(numbers, IsOk());
      ASSERT_EQ(numbers->size(), size);
      const size_t before = size;
      absl::Status status;
      while ((status = numbers->PushBack(7)).ok()) ++size;
      ASSERT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                                   HasSubstr("")));
      ASSERT_EQ(numbers->size(), size);
      if (absl::StrContains(status.message(), "no room")) break;
      ++full_logs;
      ASSERT_GT(size, before) << "the next Guard does not get on";
    }
    EXPECT_GT(size, 60u);
    EXPECT_EQ(full_logs > 0, undo == 256);
  }
}

TEST(VectorTest, NothingOfAnEmptyOneCanBeChanged) {
  Arena arena = *Arena::CreateAnonymous(4096);
  auto guard = arena.Lock();
  auto numbers = Numbers::Create(*guard);
  EXPECT_THAT(numbers->Change(0, 0), IsOk());
}

TEST(VectorTest, NoneThere) {
  Arena arena = *Arena::CreateAnonymous(4096);
  auto guard = arena.Lock();
  EXPECT_THAT(
      Numbers::At(*guard, {}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no Vector")));
  const auto lie =
      guard->New(Numbers::Header{.size = 9, .capacity = 1, .elements = {}});
  ASSERT_THAT(lie, IsOk());
  EXPECT_THAT(
      Numbers::At(*guard, *lie),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no Vector")));
  auto numbers = Numbers::Create(*guard);
  EXPECT_THAT(numbers->PopBack(),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("empty")));
}

}  // namespace
}  // namespace ipc::shm
