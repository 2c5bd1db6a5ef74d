// A process killed after every machine instruction of changing what is in a
// segment, or segments. Afterwards nothing is torn, what belongs together has
// happened or has not, and the survivors go on within two park ticks.
//
//   bazel test -c opt //tests/ipc/shm:data_kill_test
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/arena.h"
#include "ipc/shm/array.h"
#include "ipc/shm/hash_map.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/offset_ptr.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/vector.h"
#include "tests/ipc/shm/kill_world.h"
#include "tests/testing/child.h"
#include "tests/testing/kill_operations.h"
#include "tests/testing/kill_points.h"
#include "tests/testing/own_dev_shm.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/unique_name.h"

namespace ipc::shm {
namespace {

using Map = HashMap<uint64_t, uint64_t>;
using Numbers = Vector<uint64_t>;

std::vector<Operation> Values() {
  const auto check_small = [](World& world, const KillPoint& point,
                              Observed& observed) {
    const int64_t now = *world.small->Load();
    EXPECT_THAT(now, ::testing::AnyOf(1, 2));
    observed.Effect(point, now == 2);
    ASSERT_THAT(world.small->Store(3), IsOk());
    EXPECT_THAT(world.small->Load(), IsOkAndHolds(3));
  };
  const auto check_large = [](World& world, const KillPoint& point,
                              Observed& observed) {
    const auto now = world.large->Load();
    ASSERT_THAT(now, IsOk());
    ASSERT_TRUE(IsWhole(*now)) << "torn";
    EXPECT_THAT((*now)[0], ::testing::AnyOf(1u, 2u));
    observed.Effect(point, (*now)[0] == 2);
    ASSERT_THAT(world.large->Store(Filled(3), kPatience), IsOk());
    EXPECT_THAT(world.large->Load(), IsOkAndHolds(Filled(3)));
  };
  const auto one = [](World& world) {
    ASSERT_THAT(world.small->Store(1), IsOk());
    ASSERT_THAT(world.large->Store(Filled(1)), IsOk());
  };
  const auto follow = [one](World& world) {
    one(world);
    world.other.emplace(Child::Fork([&](Child::Side side) {
      const uint64_t seen = world.small->version();
      side.Tell();
      return world.small->WaitForChange(seen, kPatience).ok() ? 0 : 1;
    }));
    ASSERT_TRUE(world.other->Hear());
  };
  return {
      {.name = "ValueStoreSmall",
       .arrange = one,
       .operate = [](World& world) { (void)world.small->Store(2); },
       .check = check_small},
      {.name = "ValueStoreSmallWithAFollower",
       .arrange = follow,
       .operate = [](World& world) { (void)world.small->Store(2); },
       .check =
           [check_small](World& world, const KillPoint& point,
                         Observed& observed) {
             check_small(world, point, observed);
             EXPECT_EQ(world.other->Wait(), 0);
           }},
      {.name = "ValueUpdateSmall",
       .arrange = one,
       .operate =
           [](World& world) {
             (void)world.small->Update([](int64_t n) { return n + 1; });
           },
       .check = check_small},
      {.name = "ValueStoreLarge",
       .arrange = one,
       .operate = [](World& world) { (void)world.large->Store(Filled(2)); },
       .check = check_large},
      {.name = "ValueUpdateLarge",
       .arrange = one,
       .operate =
           [](World& world) {
             (void)world.large->Update(
                 [](const Block& block) { return Filled(block[0] + 1); });
           },
       .check = check_large},
      {.name = "ValueWaitForChange",
       .arrange = one,
       .operate =
           [](World& world) {
             (void)world.small->WaitForChange(world.small->version());
           },
       .wake = [](World& world) { (void)world.small->Store(2); },
       .check =
           [](World& world, const KillPoint&, Observed&) {
             ASSERT_THAT(world.small->Store(3), IsOk());
             EXPECT_THAT(world.small->Load(), IsOkAndHolds(3));
           }},
  };
}

std::vector<Operation> ArrayLocks() {
  const Operation lock = {
      .name = "ArrayLock",
      .operate =
          [](World& world) {
            auto guard = world.array->Lock();
            for (uint64_t& element : guard->span()) element = 2;
            guard->MarkConsistent();
          },
      .check =
          [](World& world, const KillPoint& point, Observed& observed) {
            const auto snapshot = world.array->Snapshot();
            if (snapshot.ok()) {
              EXPECT_TRUE(IsWhole(*snapshot));
            } else {
              EXPECT_FALSE(point.completed) << snapshot.status();
            }
            {
              auto guard = world.array->Lock(kPatience);
              ASSERT_THAT(guard, IsOk());
              const bool told = guard->previous_owner_died();
              EXPECT_TRUE(told || IsWhole(guard->span()));
              observed.Told(point, told);
              for (uint64_t& element : guard->span()) element = 3;
              guard->MarkConsistent();
            }
            EXPECT_FALSE(world.array->Lock()->previous_owner_died());
            EXPECT_THAT(world.array->Snapshot(), IsOk());
          },
      .tells = true};
  Operation inherit = lock;
  inherit.name = "ArrayInherit";
  inherit.arrange = [](World& world) {
    world.LeaveADead([&] {
      static auto guard = world.array->Lock();  // to the end, by SIGKILL
      guard->span()[0] = 1;
    });
  };
  Operation sleep = lock;
  sleep.name = "ArrayLockSleeping";
  sleep.arrange = [](World& world) {
    auto guard = std::make_shared<Array<uint64_t>::Guard>(*world.array->Lock());
    world.release = [guard = std::move(guard)]() mutable { guard.reset(); };
  };
  sleep.wake = [](World& world) { std::exchange(world.release, nullptr)(); };
  return {lock, inherit, sleep};
}

// Two structures in the arena that say the same: a map from 0 to each number
// below n, and a vector of them.
struct Both {
  OffsetPtr<Map::Header> map;
  OffsetPtr<Numbers::Header> numbers;
};

absl::Status MakeBoth(Arena::Guard& guard) {
  const auto map = Map::Create(guard, 2);
  if (!map.ok()) return map.status();
  const auto numbers = Numbers::Create(guard);
  if (!numbers.ok()) return numbers.status();
  const auto both = guard.New(Both{map->pointer(), numbers->pointer()});
  if (!both.ok()) return both.status();
  return guard.SetRoot(*both);
}

// Puts n more in, or takes as many out.
absl::Status ChangeBoth(Arena::Guard& guard, int n) {
  const auto root = guard.root<Both>();
  if (!root.ok()) return root.status();
  const Both both = *guard.Get(*root);
  auto map = Map::At(guard, both.map);
  auto numbers = Numbers::At(guard, both.numbers);
  if (!map.ok()) return map.status();
  if (!numbers.ok()) return numbers.status();
  absl::Status status;
  for (; n > 0 && status.ok(); --n) {
    status = map->Set(numbers->size(), 7);
    if (status.ok()) status = numbers->PushBack(numbers->size());
  }
  for (; n < 0 && status.ok(); ++n) {
    status = map->Erase(numbers->size() - 1);
    if (status.ok()) status = numbers->PopBack();
  }
  return status;
}

// How many there are, after a look at all of it.
size_t CheckBoth(Arena::Guard& guard) {
  const auto root = guard.root<Both>();
  EXPECT_THAT(root, IsOk());
  const Both both = *guard.Get(*root);
  const auto map = Map::At(guard, both.map);
  const auto numbers = Numbers::At(guard, both.numbers);
  EXPECT_THAT(map, IsOk());
  EXPECT_THAT(numbers, IsOk());
  const size_t n = numbers->size();
  EXPECT_EQ(map->size(), n);
  for (uint64_t i = 0; i < n; ++i) {
    EXPECT_EQ(numbers->span()[i], i);
    EXPECT_THAT(map->Find(i), ::testing::Pointee(7u));
  }
  // Nothing else is in use: root, two headers, buckets, nodes, elements.
  EXPECT_EQ(guard.usage()->used_blocks, 4 + n + (n > 0 ? 1 : 0));
  return n;
}

std::vector<Operation> Transactions() {
  const auto protect_and_set = [](World& world, uint64_t n) {
    auto guard = world.undoable->Lock();
    for (size_t i = 0; i < kElements; ++i) (*guard->Protect(i, 1))[0] = n;
  };
  const auto one = [protect_and_set](World& world) {
    protect_and_set(world, 1);
  };
  const auto two = [protect_and_set](World& world) {
    protect_and_set(world, 2);
  };
  const auto check_array = [](World& world, const KillPoint& point,
                              Observed& observed) {
    {
      auto guard = world.undoable->Lock(kPatience);
      ASSERT_THAT(guard, IsOk());
      EXPECT_EQ(guard->rolled_back(), guard->previous_owner_died());
      observed.told += guard->rolled_back() ? 1 : 0;
      ASSERT_TRUE(IsWhole(guard->span()));
      EXPECT_THAT(guard->span()[0], ::testing::AnyOf(1u, 2u));
      observed.Effect(point, guard->span()[0] == 2);
    }
    EXPECT_FALSE(world.undoable->Lock()->previous_owner_died());
    EXPECT_THAT(world.undoable->Snapshot(), IsOk());
  };
  const auto three = [](World& world) {
    auto guard = world.arena->Lock();
    ASSERT_THAT(MakeBoth(*guard), IsOk());
    ASSERT_THAT(ChangeBoth(*guard, 3), IsOk());
  };
  const auto change = [](int n) {
    return [n](World& world) {
      auto guard = world.arena->Lock();
      (void)ChangeBoth(*guard, n);
    };
  };
  const auto check_arena = [](size_t after) {
    return [after](World& world, const KillPoint& point, Observed& observed) {
      size_t n = 0;
      {
        auto guard = world.arena->Lock(kPatience);
        ASSERT_THAT(guard, IsOk());
        observed.told += guard->previous_owner_died() ? 1 : 0;
        n = CheckBoth(*guard);
        EXPECT_THAT(n, ::testing::AnyOf(3u, after));
        if (after != 3) observed.Effect(point, n == after);
        ASSERT_THAT(ChangeBoth(*guard, 4), IsOk());
      }
      auto guard = world.arena->Lock();
      EXPECT_FALSE(guard->previous_owner_died());
      EXPECT_EQ(CheckBoth(*guard), n + 4);
    };
  };
  // Killed in the middle, the largest of the changes.
  const auto leave_a_dead = [](World& world) {
    world.LeaveADead([&] {
      static auto array_guard = world.undoable->Lock();
      for (size_t i = 0; i < kElements; ++i) {
        (*array_guard->Protect(i, 1))[0] = 3 + i;
      }
      static auto guard = world.arena->Lock();
      (void)ChangeBoth(*guard, -2);
      (void)ChangeBoth(*guard, 4);
    });
  };
  return {
      {.name = "ArrayProtect",
       .arrange = one,
       .operate = two,
       .check = check_array},
      {.name = "ArrayPutBack",
       .arrange =
           [=](World& world) {
             one(world);
             three(world);
             leave_a_dead(world);
           },
       .operate = two,
       .check = check_array},
      {.name = "ArenaGrow",
       .arrange = three,
       .operate = change(2),
       .check = check_arena(5)},
      {.name = "ArenaShrink",
       .arrange = three,
       .operate = change(-2),
       .check = check_arena(1)},
      {.name = "ArenaRollBack",
       .arrange = three,
       .operate =
           [](World& world) {
             auto guard = world.arena->Lock();
             (void)ChangeBoth(*guard, -2);
             guard->RollBack();
             (void)ChangeBoth(*guard, 1);
           },
       .check = check_arena(4)},
      {.name = "ArenaTakeBack",
       .arrange =
           [=](World& world) {
             three(world);
             leave_a_dead(world);
           },
       .operate = [](World& world) { (void)world.arena->Lock(); },
       .check = check_arena(3)},
  };
}

// A new segment, given to the parent by its socket in one system call.
void CreateAndSend(World& world, const Segment::Options& options) {
  const auto segment = Segment::CreateAnonymous(4096, options);
  char byte = 0;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* const rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = segment->fd();
  memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
  (void)sendmsg(world.victims_end.get(), &message, 0);
}
// What came, or none.
UniqueFd ReceiveIfAny(World& world) {
  char byte;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  if (recvmsg(world.parents_end.get(), &message,
              MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1) {
    return UniqueFd();
  }
  int fd = -1;
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
  return UniqueFd(fd);
}

std::vector<Operation> Segments() {
  const std::string name = testing::UniqueName("parley_sync_kill_test");
  const auto open = [](World& world) {
    return Segment::FromFd(
        UniqueFd(fcntl(world.segment.fd(), F_DUPFD_CLOEXEC, 0)));
  };
  const auto connect = [](World& world) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    world.parents_end = UniqueFd(ends[0]);
    world.victims_end = UniqueFd(ends[1]);
  };
  // What its creator has given away outlives it, and is as good as any.
  const auto check_sent = [](World& world, const KillPoint& point,
                             Observed& observed) {
    UniqueFd fd = ReceiveIfAny(world);
    observed.Effect(point, fd.ok());
    if (fd.ok()) {
      const auto segment = Segment::FromFd(std::move(fd));
      ASSERT_THAT(segment, IsOk());
      ASSERT_EQ(segment->bytes().size(), 4096u);
      EXPECT_EQ(std::count(segment->bytes().begin(), segment->bytes().end(),
                           std::byte{0}),
                4096);
      auto mutex = Mutex::Attach(*segment, 0);
      ASSERT_THAT(mutex, IsOk());
      EXPECT_FALSE(mutex->Lock(kPatience)->previous_owner_died());
    }
  };
  const auto create = [name](World& world) {
    world.named.emplace(*Segment::Create(name, 4096));
  };
  // Its name is there or is not, and is to be had again.
  const auto check_removed = [name](World& world, const KillPoint& point,
                                    Observed& observed) {
    world.named.reset();
    {
      const auto still = Segment::Open(name, Access::kRead);
      observed.Effect(point, !still.ok());
      EXPECT_THAT(
          still.status().code(),
          ::testing::AnyOf(absl::StatusCode::kOk, absl::StatusCode::kNotFound));
    }
    EXPECT_THAT(Segment::RemoveStale(), IsOk());
    (void)Segment::Unlink(name);
    EXPECT_THAT(Segment::Create(name, 4096), IsOk());
    EXPECT_THAT(Segment::Unlink(name), IsOk());
  };
  return {
      {.name = "SegmentCreate",
       .arrange = connect,
       .operate = [](World& world) { CreateAndSend(world, {}); },
       .check = check_sent},
      {.name = "SegmentCreateOfHugePages",
       .arrange = connect,
       .operate =
           [](World& world) { CreateAndSend(world, {.huge_pages = true}); },
       .check = check_sent},
      {.name = "SegmentUnlink",
       .arrange = create,
       .operate = [name](World&) { (void)Segment::Unlink(name); },
       .check = check_removed},
      {.name = "SegmentRemoveStale",
       .arrange =
           [name](World& world) {
             world.LeaveADead([&] {
               static const auto segment = Segment::Create(name, 4096);
             });
           },
       .operate = [](World&) { (void)Segment::RemoveStale(); },
       .check = check_removed,
       // It asks the kernel for each participant that there may be.
       .coarse = {.passes = 2, .stride = 97}},
      {.name = "SegmentCreateNamed",
       .operate = [name](World&) { (void)Segment::Create(name, 4096); },
       .check =
           [name](World&, const KillPoint& point, Observed& observed) {
             // There is none, or it is complete.
             const auto segment = Segment::Open(name);
             observed.Effect(point, segment.ok());
             if (segment.ok()) {
               EXPECT_EQ(segment->bytes().size(), 4096u);
               EXPECT_THAT(Segment::Unlink(name), IsOk());
             } else {
               EXPECT_EQ(segment.status().code(), absl::StatusCode::kNotFound);
             }
           }},
      {.name = "SegmentOpenNamed",
       .arrange =
           [name](World& world) {
             world.named.emplace(*Segment::Create(name, 4096));
           },
       .operate = [name](World&) { (void)Segment::Open(name); },
       .check =
           [name](World& world, const KillPoint&, Observed&) {
             EXPECT_THAT(Segment::Open(name), IsOk());
             world.named.reset();
             // All who used it are dead, or have left.
             EXPECT_THAT(Segment::RemoveStale(), IsOk());
             (void)Segment::Unlink(name);
           }},
      {.name = "SegmentOpen",
       .operate = [open](World& world) { (void)open(world); },
       .check =
           [open](World& world, const KillPoint&, Observed&) {
             const auto again = open(world);
             ASSERT_THAT(again, IsOk());
             EXPECT_THAT(Mutex::Attach(*again, 0),
                         StatusIs(absl::StatusCode::kFailedPrecondition,
                                  ::testing::HasSubstr("has layout")));
             EXPECT_THAT(world.mutex->Lock(kPatience), IsOk());
           }},
  };
}

std::vector<Operation> Operations() {
  std::vector<Operation> all;
  for (auto more : {Values(), ArrayLocks(), Transactions(), Segments()}) {
    for (Operation& operation : more) all.push_back(std::move(operation));
  }
  return all;
}

class DataKillTest : public ::testing::TestWithParam<Operation> {
 protected:
  // Stale segments of others are not ours to remove.
  static void SetUpTestSuite() { testing::EnterOwnDevShm(); }
};

INSTANTIATE_TEST_SUITE_P(Operations, DataKillTest,
                         ::testing::ValuesIn(Operations()),
                         [](const auto& info) { return info.param.name; });

TEST_P(DataKillTest, Survived) { testing::CheckSurvival(GetParam(), kTick); }

}  // namespace
}  // namespace ipc::shm
