#include "ipc/shm/arena.h"

#include <fcntl.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/offset_ptr.h"
#include "ipc/shm/segment.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsNull;
using ::testing::Not;
using ::testing::NotNull;

constexpr size_t kBytes = 1 << 16;

UniqueFd Dup(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

struct Node {
  int64_t key;
  OffsetPtr<Node> next;
};

// Puts a key in front of the list that begins at the root.
absl::Status Push(Arena::Guard& guard, int64_t key) {
  const auto head = guard.root<Node>();
  if (!head.ok()) return head.status();
  const auto node = guard.New(Node{.key = key, .next = *head});
  if (!node.ok()) return node.status();
  return guard.SetRoot(*node);
}

absl::Status Push(Arena& arena, int64_t key) {
  auto guard = arena.Lock();
  return guard.ok() ? Push(*guard, key) : guard.status();
}

std::vector<int64_t> Keys(Arena& arena) {
  std::vector<int64_t> keys;
  const auto guard = arena.Lock();
  for (const Node* node = guard->Get(*guard->root<Node>()); node != nullptr;
       node = guard->Get(node->next)) {
    keys.push_back(node->key);
  }
  return keys;
}

TEST(ArenaTest, AListForAnotherProcess) {
  Arena arena = *Arena::CreateAnonymous(kBytes);
  {
    auto guard = arena.Lock();
    ASSERT_THAT(guard, IsOk());
    EXPECT_FALSE(guard->previous_owner_died());
    EXPECT_FALSE(*guard->root<Node>());
    for (int64_t key : {1, 2, 3}) ASSERT_THAT(Push(*guard, key), IsOk());
  }
  Child child = Child::Fork([&](Child::Side) {
    auto same = Arena::FromFd(Dup(arena.fd()), kBytes);
    if (!same.ok() || Keys(*same) != std::vector<int64_t>{3, 2, 1}) return 1;
    auto guard = same->Lock();
    auto head = guard->Change(*guard->root<Node>());
    if (!head.ok()) return 2;
    (*head)->key = 30;
    return Push(*guard, 4).ok() ? 0 : 3;
  });
  ASSERT_EQ(child.Wait(), 0);
  EXPECT_EQ(Keys(arena), (std::vector<int64_t>{4, 30, 2, 1}));
}

TEST(ArenaTest, NewIsZeroedAndAligned) {
  struct alignas(64) Wide {
    std::array<char, 64> bytes;
  };
  Arena arena = *Arena::CreateAnonymous(kBytes);
  for (int round = 0; round < 3; ++round) {
    auto guard = arena.Lock();
    std::vector<OffsetPtr<char>> chars;
    std::vector<OffsetPtr<Wide>> wides;
    for (int i = 0; i < 20; ++i) {
      const auto small = guard->NewArray<char>(1 + 7 * i);
      ASSERT_THAT(small, IsOk());
      auto bytes = guard->ChangeArray(*small, 0, 1 + 7 * i);
      ASSERT_THAT(bytes, IsOk());
      EXPECT_THAT(*bytes, Each('\0'));
      std::memset(bytes->data(), 0xff, bytes->size());
      chars.push_back(*small);

      const auto wide = guard->New<Wide>();
      ASSERT_THAT(wide, IsOk());
      auto at = guard->Change(*wide);
      ASSERT_THAT(at, IsOk());
      EXPECT_EQ(reinterpret_cast<uintptr_t>(*at) % 64, 0u);
      EXPECT_THAT((*at)->bytes, Each('\0'));
      (*at)->bytes.fill(1);
      wides.push_back(*wide);
    }
    for (const auto& pointer : chars) ASSERT_THAT(guard->Free(pointer), IsOk());
    for (const auto& pointer : wides) ASSERT_THAT(guard->Free(pointer), IsOk());
  }
  auto usage = arena.Lock()->usage();
  ASSERT_THAT(usage, IsOk());
  EXPECT_EQ(usage->used_blocks, 0u);
  EXPECT_EQ(usage->free_bytes, kBytes);
  EXPECT_EQ(usage->largest_free_bytes, kBytes);
}

TEST(ArenaTest, RollBackTakesEverythingBack) {
  Arena arena = *Arena::CreateAnonymous(kBytes);
  ASSERT_THAT(Push(arena, 1), IsOk());
  {
    auto guard = arena.Lock();
    const auto old = *guard->root<Node>();
    (*guard->Change(old))->key = 10;
    ASSERT_THAT(Push(*guard, 2), IsOk());
    ASSERT_THAT(guard->Free(old), IsOk());
    guard->RollBack();
    EXPECT_EQ(guard->usage()->used_blocks, 1u);
    ASSERT_THAT(Push(*guard, 3), IsOk());
  }
  EXPECT_EQ(Keys(arena), (std::vector<int64_t>{3, 1}));
}

TEST(ArenaTest, RollBackToASavepoint) {
  Arena arena = *Arena::CreateAnonymous(kBytes);
  {
    auto guard = arena.Lock();
    ASSERT_THAT(Push(*guard, 1), IsOk());
    const auto first = guard->MakeSavepoint();
    // Of a block that is new, and all the same older than the savepoint.
    (*guard->Change(*guard->root<Node>()))->key = 10;
    ASSERT_THAT(Push(*guard, 2), IsOk());
    const auto second = guard->MakeSavepoint();
    ASSERT_THAT(Push(*guard, 3), IsOk());
    guard->RollBack(second);
    ASSERT_THAT(Push(*guard, 4), IsOk());
    guard->RollBack(first);
    ASSERT_THAT(Push(*guard, 5), IsOk());
    // Behind the end by now, so it takes nothing back.
    guard->RollBack(second);
  }
  EXPECT_EQ(Keys(arena), (std::vector<int64_t>{5, 1}));
  EXPECT_EQ(arena.Lock()->usage()->used_blocks, 2u);
}

TEST(ArenaTest, WhatAKilledHolderDidIsTakenBack) {
  Arena arena = *Arena::CreateAnonymous(kBytes);
  for (int64_t key : {1, 2}) ASSERT_THAT(Push(arena, key), IsOk());
  Child child = Child::Fork([&](Child::Side side) {
    auto guard = arena.Lock();
    const auto head = *guard->root<Node>();
    (*guard->Change(head))->key = 20;
    if (!Push(*guard, 3).ok() || !guard->Free(head).ok()) return 1;
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(child.Hear());
  EXPECT_THAT(arena.Lock(absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("")));
  child.Kill();
  {
    auto guard = arena.Lock(absl::Seconds(10));
    ASSERT_THAT(guard, IsOk());
    EXPECT_TRUE(guard->previous_owner_died());
    EXPECT_EQ(guard->usage()->used_blocks, 2u);
  }
  EXPECT_FALSE(arena.Lock()->previous_owner_died());
  EXPECT_EQ(Keys(arena), (std::vector<int64_t>{2, 1}));
}

TEST(ArenaTest, WhatOneGuardFreesIsForTheNext) {
  Arena arena = *Arena::CreateAnonymous(256);
  OffsetPtr<char> block;
  {
    auto guard = arena.Lock();
    block = *guard->NewArray<char>(200);
    ASSERT_THAT(guard->Free(block), IsOk());
    // Or else its content could not be taken back.
    EXPECT_THAT(guard->NewArray<char>(200),
                StatusIs(absl::StatusCode::kResourceExhausted,
                         HasSubstr("the next one")));
  }
  EXPECT_THAT(arena.Lock()->NewArray<char>(200), IsOkAndHolds(block));
}

// A large one in place of many small ones, though the log has room for few of
// their headers.
TEST(ArenaTest, FreeNeighboursAreOneBlock) {
  Arena arena = *Arena::CreateAnonymous(64 * 48, 256);
  std::vector<OffsetPtr<char>> blocks;
  while (true) {
    auto guard = arena.Lock();
    auto block = guard->NewArray<char>(32);
    if (!block.ok()) break;
    blocks.push_back(*block);
  }
  ASSERT_EQ(blocks.size(), 64u);
  for (const OffsetPtr<char> block : blocks) {
    ASSERT_THAT(arena.Lock()->Free(block), IsOk());
  }
  {
    // One of the size that is there needs none of the others.
    auto guard = arena.Lock();
    ASSERT_THAT(guard->NewArray<char>(32), IsOk());
    guard->RollBack();
    ASSERT_THAT(guard->NewArray<char>(32), IsOk());
    // Now there is something in the log, so as many as a large one needs are.
    EXPECT_THAT(guard->NewArray<char>(64 * 32), IsOk());
    guard->RollBack();
  }
  EXPECT_THAT(arena.Lock()->NewArray<char>(64 * 48 - 16), IsOk());
}

// A log that has room for a few headers only, and something done before.
TEST(ArenaTest, ManyFreeNeighboursInTheMiddleOfAGuard) {
  Arena arena = *Arena::CreateAnonymous(64 * 48, 256);
  std::vector<OffsetPtr<char>> blocks;
  for (int i = 0; i < 64; ++i) {
    blocks.push_back(*arena.Lock()->NewArray<char>(32));
  }
  for (const OffsetPtr<char> block : blocks) {
    if (block != blocks.front()) {
      ASSERT_THAT(arena.Lock()->Free(block), IsOk());
    }
  }
  {
    auto guard = arena.Lock();
    ASSERT_THAT(guard->Change(blocks.front()), IsOk());
    EXPECT_THAT(guard->NewArray<char>(30 * 48),
                StatusIs(absl::StatusCode::kResourceExhausted,
                         HasSubstr("undo log is full")));
    // What it did not do leaves no trace.
    guard->RollBack();
    EXPECT_THAT(guard->NewArray<char>(30 * 48), IsOk());
    EXPECT_THAT(guard->Change(blocks.front()), IsOk());
  }
}

TEST(ArenaTest, NoRoom) {
  Arena arena = *Arena::CreateAnonymous(256);
  auto guard = arena.Lock();
  for (const size_t size : {size_t{241}, size_t{1} << 40, SIZE_MAX}) {
    EXPECT_THAT(
        guard->NewArray<char>(size),
        StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("no room")));
  }
  EXPECT_THAT(
      guard->NewArray<uint64_t>(SIZE_MAX / 4),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("no room")));
  EXPECT_THAT(guard->NewArray<char>(240), IsOk());
  EXPECT_THAT(guard->New('x'), StatusIs(absl::StatusCode::kResourceExhausted,
                                        HasSubstr("no room")));
}

TEST(ArenaTest, AFullLogIsAnErrorAndNothingIsLost) {
  Arena arena = *Arena::CreateAnonymous(kBytes, 256);
  OffsetPtr<int64_t> numbers;
  {
    auto guard = arena.Lock();
    numbers = *guard->NewArray<int64_t>(100);
    ASSERT_THAT(guard->SetRoot(numbers), IsOk());
    // A new block needs no room in the log, however large.
    ASSERT_THAT(guard->ChangeArray(numbers, 0, 100), IsOk());
  }
  auto guard = arena.Lock();
  EXPECT_THAT(
      guard->ChangeArray(numbers, 0, 100),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("undo_bytes")));
  size_t changed = 0;
  for (; changed < 100; ++changed) {
    auto number = guard->ChangeArray(numbers, changed, 1);
    if (!number.ok()) break;
    (*number)[0] = 7;
  }
  EXPECT_EQ(changed, 256u / 24);
  guard->RollBack();
  EXPECT_THAT(guard->GetArray(numbers, 100), Each(0));
  EXPECT_THAT(guard->ChangeArray(numbers, 0, 29), IsOk());
}

TEST(ArenaTest, TheSameBytesTakeTheLogOnce) {
  Arena arena = *Arena::CreateAnonymous(kBytes, 256);
  ASSERT_THAT(Push(arena, 0), IsOk());
  auto guard = arena.Lock();
  for (int i = 0; i < 1000; ++i) {
    auto node = guard->Change(*guard->root<Node>());
    ASSERT_THAT(node, IsOk());
    ++(*node)->key;
  }
  guard->RollBack();
  EXPECT_EQ(guard->Get(*guard->root<Node>())->key, 0);
}

TEST(ArenaTest, BadPointers) {
  Arena arena = *Arena::CreateAnonymous(kBytes);
  auto guard = arena.Lock();
  const auto node = guard->New(Node{});
  ASSERT_THAT(node, IsOk());
  EXPECT_THAT(guard->Get(*node), NotNull());
  const OffsetPtr<Node> beyond = {kBytes + 64};
  const OffsetPtr<Node> last = {kBytes + 64 - sizeof(Node)};
  const OffsetPtr<Node> across = {kBytes + 64 - 8};
  EXPECT_THAT(guard->Get(last), NotNull());
  for (const OffsetPtr<Node> bad :
       {OffsetPtr<Node>{}, OffsetPtr<Node>{1}, OffsetPtr<Node>{64},
        OffsetPtr<Node>{node->offset + 1}, beyond, across,
        OffsetPtr<Node>{UINT64_MAX}, OffsetPtr<Node>{UINT64_MAX - 7}}) {
    EXPECT_THAT(guard->Get(bad), IsNull()) << bad.offset;
    EXPECT_THAT(guard->GetArray(bad, 1), IsEmpty());
    EXPECT_THAT(guard->Change(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                             HasSubstr("null or rubbish")));
    EXPECT_THAT(guard->ChangeArray(bad, 0, 1),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
    EXPECT_THAT(guard->Free(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("no block in use")));
  }
  EXPECT_THAT(guard->Free(last), Not(IsOk()));
  for (const size_t far : {kBytes, SIZE_MAX, SIZE_MAX / sizeof(Node)}) {
    EXPECT_THAT(guard->ChangeArray(*node, far, 1), Not(IsOk()));
    EXPECT_THAT(guard->ChangeArray(*node, 0, far), Not(IsOk()));
    EXPECT_THAT(guard->ChangeArray(*node, 1, far), Not(IsOk()));
    EXPECT_THAT(guard->GetArray(*node, far), IsEmpty());
  }
  EXPECT_THAT(guard->Free(*node), IsOk());
  EXPECT_THAT(guard->Free(*node), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("no block in use")));
}

TEST(ArenaTest, TheRootHasAType) {
  Arena arena = *Arena::CreateAnonymous(kBytes);
  auto guard = arena.Lock();
  EXPECT_FALSE(*guard->root<double>());
  ASSERT_THAT(Push(*guard, 1), IsOk());
  EXPECT_THAT(guard->root<double>(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("another type")));
}

TEST(ArenaTest, AttachWithOtherNumbersIsRefused) {
  Arena arena = *Arena::CreateAnonymous(kBytes);
  EXPECT_THAT(Arena::FromFd(Dup(arena.fd()), kBytes - 64),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
  EXPECT_THAT(Arena::FromFd(Dup(arena.fd()), kBytes, 512),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
  for (const size_t undo : {0, 12}) {
    EXPECT_THAT(Arena::CreateAnonymous(kBytes, undo),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("multiple of 8")));
  }
  EXPECT_THAT(Arena::CreateAnonymous(SIZE_MAX - 5), Not(IsOk()));
}

TEST(ArenaTest, AForkedChildTakesNothingBack) {
  Arena arena = *Arena::CreateAnonymous(kBytes);
  {
    auto guard = arena.Lock();
    ASSERT_THAT(Push(*guard, 1), IsOk());
    std::optional<Arena::Guard> inherited(*std::move(guard));
    Child child = Child::Fork([&](Child::Side) {
      inherited->RollBack();
      inherited.reset();
      return 0;
    });
    ASSERT_EQ(child.Wait(), 0);
    ASSERT_THAT(Push(*inherited, 2), IsOk());
  }
  EXPECT_EQ(Keys(arena), (std::vector<int64_t>{2, 1}));
}

// Headers of blocks that a peer has overwritten.
TEST(ArenaTest, RubbishIsDataLoss) {
  Arena arena = *Arena::CreateAnonymous(256);
  const OffsetPtr<char> block = *arena.Lock()->NewArray<char>(40);
  auto* const words =
      reinterpret_cast<uint64_t*>(arena.segment().bytes().data());
  const size_t heap = Arena::SizeBytes(256) - 256 - 64;
  uint64_t& word = words[(heap + block.offset - 16) / 8];
  const uint64_t old = word;
  for (const uint64_t bad : {uint64_t{1}, ~uint64_t{0}, old & 0xffff, old + 256,
                             old - 64, old + 8}) {
    word = bad;
    auto guard = arena.Lock();
    EXPECT_THAT(guard->usage(), StatusIs(absl::StatusCode::kDataLoss,
                                         HasSubstr("out of bounds")))
        << bad;
    EXPECT_THAT(guard->NewArray<char>(200),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("")));
    EXPECT_THAT(guard->Free(block), Not(IsOk()));
  }
  word = old;
  EXPECT_THAT(arena.Lock()->Free(block), IsOk());
}

// Thousands of random steps beside a model that is simple: whole transactions
// of New, Change and Free, some of them rolled back, partly or whole.
TEST(ArenaTest, BehavesAsAModel) {
  struct Model {
    std::map<uint64_t, std::vector<uint8_t>> blocks;
  };
  Arena arena = *Arena::CreateAnonymous(1 << 14);
  std::mt19937 random(20261123);
  const auto below = [&](size_t n) { return random() % n; };
  Model model;
  int made = 0;
  int full = 0;
  for (int round = 0; round < 2000; ++round) {
    auto guard = arena.Lock();
    ASSERT_THAT(guard, IsOk());
    const Model before = model;
    std::optional<std::pair<Arena::Guard::Savepoint, Model>> savepoint;
    for (size_t step = below(12); step > 0; --step) {
      auto any = model.blocks.begin();
      if (any != model.blocks.end()) {
        std::advance(any, below(model.blocks.size()));
      }
      const size_t what = below(8);
      if (what < 3) {
        const size_t size = 1 + below(400);
        const auto block = guard->NewArray<uint8_t>(size);
        if (!block.ok()) {
          ASSERT_THAT(block, StatusIs(absl::StatusCode::kResourceExhausted,
                                      HasSubstr("")));
          ++full;
          continue;
        }
        ++made;
        auto bytes = guard->ChangeArray(*block, 0, size);
        ASSERT_THAT(bytes, IsOk());
        ASSERT_THAT(*bytes, Each(0));
        for (uint8_t& byte : *bytes) byte = random();
        ASSERT_TRUE(
            model.blocks
                .emplace(block->offset,
                         std::vector<uint8_t>(bytes->begin(), bytes->end()))
                .second);
      } else if (what < 5 && any != model.blocks.end()) {
        ASSERT_THAT(guard->Free(OffsetPtr<uint8_t>{any->first}), IsOk());
        model.blocks.erase(any);
      } else if (what < 7 && any != model.blocks.end()) {
        const size_t first = below(any->second.size());
        const size_t count = below(any->second.size() - first) + 1;
        auto bytes =
            guard->ChangeArray(OffsetPtr<uint8_t>{any->first}, first, count);
        ASSERT_THAT(bytes, IsOk());
        for (size_t i = 0; i < count; ++i) {
          any->second[first + i] = (*bytes)[i] = random();
        }
      } else {
        savepoint.emplace(guard->MakeSavepoint(), model);
      }
    }
    const size_t end = below(4);
    if (end == 0) {
      guard->RollBack();
      model = before;
    } else if (end == 1 && savepoint.has_value()) {
      guard->RollBack(savepoint->first);
      model = savepoint->second;
    }
    ASSERT_EQ(guard->usage()->used_blocks, model.blocks.size()) << round;
    for (const auto& [offset, bytes] : model.blocks) {
      ASSERT_EQ(guard->GetArray(OffsetPtr<uint8_t>{offset}, bytes.size()),
                absl::MakeConstSpan(bytes))
          << "round " << round;
    }
  }
  EXPECT_GT(made, 1000);
  EXPECT_GT(full, 100);
}

}  // namespace
}  // namespace ipc::shm
