#include "ipc/shm/hash_map.h"

#include <cstdint>
#include <map>
#include <random>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/shm/arena.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using ::testing::HasSubstr;
using ::testing::IsNull;
using ::testing::Pointee;
using Map = HashMap<int64_t, double>;

static_assert(IsComparedByItsBytes<int64_t>);
static_assert(!IsComparedByItsBytes<double>);

TEST(HashMapTest, SetFindErase) {
  Arena arena = *Arena::CreateAnonymous(1 << 16);
  {
    auto guard = arena.Lock();
    auto map = Map::Create(*guard, 10);
    ASSERT_THAT(map, IsOk());
    ASSERT_THAT(guard->SetRoot(map->pointer()), IsOk());
    EXPECT_THAT(map->Find(1), IsNull());
    ASSERT_THAT(map->Set(1, 1.5), IsOk());
    ASSERT_THAT(map->Set(2, 2.5), IsOk());
    ASSERT_THAT(map->Set(1, 3.5), IsOk());
  }
  auto guard = arena.Lock();
  auto map = Map::At(*guard, *guard->root<Map::Header>());
  ASSERT_THAT(map, IsOk());
  EXPECT_EQ(map->size(), 2u);
  EXPECT_THAT(map->Find(1), Pointee(3.5));
  EXPECT_THAT(map->Erase(1), IsOk());
  EXPECT_THAT(map->Erase(1),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("")));
  EXPECT_THAT(map->Find(1), IsNull());
  EXPECT_THAT(map->Find(2), Pointee(2.5));
  EXPECT_EQ(map->size(), 1u);
  ASSERT_THAT(map->Destroy(), IsOk());
  EXPECT_EQ(guard->usage()->used_blocks, 0u);
}

TEST(HashMapTest, WhereNoneIs) {
  Arena arena = *Arena::CreateAnonymous(1 << 16);
  auto guard = arena.Lock();
  EXPECT_THAT(Map::At(*guard, {}), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr("no HashMap")));
  EXPECT_THAT(Map::Create(*guard, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  EXPECT_THAT(Map::Create(*guard, 1 << 20),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("")));
  EXPECT_EQ(guard->usage()->used_blocks, 0u);
  // A map of other types.
  auto map = Map::Create(*guard, 1);
  ASSERT_THAT(guard->SetRoot(map->pointer()), IsOk());
  EXPECT_THAT((guard->root<HashMap<int64_t, float>::Header>()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
}

// What fails for want of room, in the arena or the log, changes nothing.
TEST(HashMapTest, AFullArenaOrLogChangesNothing) {
  for (const size_t undo : {512, 1 << 16}) {
    Arena arena = *Arena::CreateAnonymous(1024, undo);
    auto guard = arena.Lock();
    auto map = Map::Create(*guard, 1);
    ASSERT_THAT(map, IsOk());
    const auto before = guard->MakeSavepoint();
    int64_t n = 0;
    absl::Status status;
    while ((status = map->Set(n, 0.5)).ok()) ++n;
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                                 HasSubstr(undo == 512 ? "log" : "room")));
    EXPECT_GT(n, 2);
    EXPECT_EQ(map->size(), static_cast<size_t>(n));
    size_t seen = 0;
    map->ForEach([&](int64_t, double) { ++seen; });
    EXPECT_EQ(seen, map->size());
    guard->RollBack(before);
    EXPECT_EQ(map->size(), 0u);
    EXPECT_EQ(guard->usage()->used_blocks, 2u);
  }
}

TEST(HashMapTest, BehavesAsStdMap) {
  Arena arena = *Arena::CreateAnonymous(1 << 18);
  const auto at = [&] {
    auto guard = arena.Lock();
    return Map::Create(*guard, 50)->pointer();
  }();
  std::map<int64_t, double> model;
  std::mt19937 random(7);
  for (int round = 0; round < 1000; ++round) {
    auto guard = arena.Lock();
    auto map = Map::At(*guard, at);
    ASSERT_THAT(map, IsOk());
    const auto before = model;
    for (int i = 0; i < 10; ++i) {
      const int64_t key = random() % 200;
      if (random() % 2 == 0) {
        model[key] = round;
        ASSERT_THAT(map->Set(key, round), IsOk());
      } else {
        EXPECT_EQ(map->Erase(key).ok(), model.erase(key) == 1);
      }
    }
    if (random() % 3 == 0) {
      guard->RollBack();
      model = before;
    }
    std::map<int64_t, double> seen;
    map->ForEach([&](int64_t key, double value) { seen[key] = value; });
    ASSERT_EQ(seen, model);
    ASSERT_EQ(map->size(), model.size());
  }
}

// A peer has made a circle of a chain: searching ends all the same.
TEST(HashMapTest, ACircleEnds) {
  Arena arena = *Arena::CreateAnonymous(1 << 16);
  auto guard = arena.Lock();
  auto map = Map::Create(*guard, 1);
  for (int64_t key : {1, 2, 3}) ASSERT_THAT(map->Set(key, 0), IsOk());
  const auto* const header = guard->Get(map->pointer());
  const auto first = *guard->Get(header->table);
  auto node = guard->Change(first);
  ASSERT_THAT(node, IsOk());
  (*node)->next = first;
  (*guard->Change(map->pointer()))->size = SIZE_MAX;
  EXPECT_THAT(map->Find(99), IsNull());
  size_t visits = 0;
  map->ForEach([&](int64_t, double) { ++visits; });
  EXPECT_LT(visits, (size_t{1} << 16) / 16);
}

// What was freed one at a time is there for the next one, at once.
TEST(HashMapTest, FilledAndEmptiedItTakesMore) {
  Arena arena = *Arena::CreateAnonymous(1 << 14);
  const auto at = [&] {
    auto guard = arena.Lock();
    return Map::Create(*guard, 64)->pointer();
  }();
  for (int round = 0; round < 3; ++round) {
    int64_t keys = 0;
    while (true) {
      auto guard = arena.Lock();
      if (!Map::At(*guard, at)->Set(keys, 1).ok()) break;
      ++keys;
    }
    EXPECT_GT(keys, 200) << round;
    for (int64_t key = 0; key < keys; ++key) {
      auto guard = arena.Lock();
      ASSERT_THAT(Map::At(*guard, at)->Erase(key), IsOk());
    }
    auto guard = arena.Lock();
    ASSERT_THAT(Map::At(*guard, at)->Set(1, 1), IsOk());
    guard->RollBack();
  }
}

}  // namespace
}  // namespace ipc::shm
