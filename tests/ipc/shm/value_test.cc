#include "ipc/shm/value.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/memory.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/value_layout.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

using Block = std::array<uint64_t, 512>;

struct Reading {
  static constexpr uint64_t kLayoutId = LayoutId("value_test.Reading/1");
  double temperature;
  int32_t sensor;
  char unit[13];  // 25 bytes: not a multiple of 8
  bool operator==(const Reading&) const = default;
};

UniqueFd Dup(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

template <typename T>
internal::ValueHeader& HeaderOf(const Value<T>& value) {
  return *reinterpret_cast<internal::ValueHeader*>(
      value.segment().bytes().data());
}

// Returns once somebody sleeps for a change of `value`, or is about to.
template <typename T>
void AwaitWaiter(const Value<T>& value) {
  while (HeaderOf(value).signal.waiting.load() == 0) std::this_thread::yield();
}

// The codes_values of CPython's _TestValue: what is created, what is then set.
template <typename T>
void TestValue(const T& initial, const T& changed) {
  absl::StatusOr<Value<T>> value = Value<T>::CreateAnonymous(initial);
  ASSERT_THAT(value, IsOk());
  EXPECT_EQ(*value->Load(), initial);
  Child child = Child::Fork([&](Child::Side) {
    auto same = Value<T>::FromFd(Dup(value->fd()));
    if (!same.ok() || !(*same->Load() == initial)) return 1;
    return same->Store(changed).ok() ? 0 : 2;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(*value->Load(), changed);
}

// CPython: test_value
TEST(ValueTest, Value) {
  TestValue<int32_t>(4343, 24234);
  TestValue<double>(3.625, -4.25);
  TestValue<int16_t>(-232, 234);
  TestValue<int64_t>(int64_t{1} << 33, int64_t{1} << 34);
  TestValue<char>('x', 'y');
  TestValue<bool>(false, true);
  TestValue<std::array<char, 3>>({'a', 'b', 'c'}, {'d', 'e', 'f'});
  TestValue<Reading>({20.5, 7, "celsius"}, {-3, 8, "centigrades"});
  TestValue<Block>(Block{1, 2}, Block{3, 4});
}

// CPython: test_rawvalue: neither has a lock here, and the test there is the
// same but for that; so this one is of a Value in a segment with others
TEST(ValueTest, RawValue) {
  const Segment segment = *Segment::CreateAnonymous(4096);
  auto value = Value<Reading>::Attach(segment, 64);
  auto beside = Value<int>::Attach(segment, 64 + Value<Reading>::SizeBytes());
  ASSERT_THAT(value, IsOk());
  EXPECT_EQ(*value->Load(), Reading());
  const Reading reading = {1, 2, "three"};
  const Reading changed = {2, 3, "four"};
  ASSERT_THAT(value->Store(reading), IsOk());
  EXPECT_EQ(*value->Load(), reading);
  Child child = Child::Fork([&](Child::Side) {
    auto same = Segment::FromFd(Dup(segment.fd()));
    if (!same.ok()) return 1;
    auto its = Value<Reading>::Attach(*same, 64);
    if (!its.ok() || !(*its->Load() == reading)) return 2;
    return its->Store(changed).ok() ? 0 : 3;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(*value->Load(), changed);
  EXPECT_EQ(*beside->Load(), 0);
}

// CPython: test_getobj_getlock: what the lock is for there, reading and writing
// in one, Update does. Readers need none, and other writers wait for it
TEST(ValueTest, GetobjGetlock) {
  auto value = Value<Block>::CreateAnonymous(Block{5});
  ASSERT_THAT(value, IsOk());
  const auto updated = value->Update([&](const Block& before) {
    EXPECT_EQ(before[0], 5u);
    Child child = Child::Fork([&](Child::Side) {
      auto same = Value<Block>::FromFd(Dup(value->fd()));
      if (!same.ok() || (*same->Load())[0] != 5) return 1;
      return absl::IsDeadlineExceeded(
                 same->Store(Block{6}, absl::ZeroDuration()))
                 ? 0
                 : 2;
    });
    EXPECT_EQ(child.Wait(), 0);
    return Block{before[0] + 1};
  });
  ASSERT_THAT(updated, IsOk());
  EXPECT_EQ((*value->Load())[0], 6u);
  EXPECT_THAT(value->Store(Block{7}, absl::ZeroDuration()), IsOk());
}

TEST(ValueTest, SizeBytes) {
  static_assert(Value<bool>::SizeBytes() == 64);
  static_assert(Value<double>::SizeBytes() == 64);
  static_assert(Value<Reading>::SizeBytes() == 64 + 4 * 64);
  static_assert(Value<Block>::SizeBytes() == 64 + 4 * 4096);
}

TEST(ValueTest, ZeroBytesAreAValue) {
  const Segment segment = *Segment::CreateAnonymous(4096);
  EXPECT_EQ(*Value<int>::Attach(segment, 0)->Load(), 0);
  EXPECT_EQ(Value<int>::Attach(segment, 0)->version(), 0u);
  auto reading = Value<Reading>::Attach(segment, 64);
  EXPECT_EQ(*reading->Load(), Reading());
  EXPECT_EQ(reading->version(), 0u);
}

TEST(ValueTest, SeveralInOneSegment) {
  auto first = [] {
    // The Values keep the segment.
    const Segment segment = *Segment::CreateAnonymous(
        Value<Reading>::SizeBytes() + Value<int>::SizeBytes());
    return std::pair(*Value<Reading>::Attach(segment, 0),
                     *Value<int>::Attach(segment, Value<Reading>::SizeBytes()));
  }();
  ASSERT_THAT(first.first.Store({5, 6, "7"}), IsOk());
  ASSERT_THAT(first.second.Store(8), IsOk());
  EXPECT_THAT(first.first.Load(), IsOkAndHolds(Reading{5, 6, "7"}));
  EXPECT_THAT(first.second.Load(), IsOkAndHolds(8));
}

TEST(ValueTest, AnotherTypeIsRefused) {
  const auto value = Value<int64_t>::CreateAnonymous(1);
  EXPECT_THAT(
      Value<double>::FromFd(Dup(value->fd())),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               AllOf(HasSubstr("Value of 1 x 8 bytes at offset 0"),
                     HasSubstr("has layout 0x"), HasSubstr("there has 0x"))));
  EXPECT_THAT(Value<int32_t>::FromFd(Dup(value->fd())),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("has layout 0x")));
  EXPECT_THAT(Value<Block>::FromFd(Dup(value->fd())),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("takes 16448 bytes, but the user area has")));
  EXPECT_EQ(*Value<int64_t>::FromFd(Dup(value->fd()))->Load(), 1);
}

TEST(ValueTest, AttachChecksThePlace) {
  const Segment segment = *Segment::CreateAnonymous(128);
  EXPECT_THAT(Value<int>::Attach(segment, 64), IsOk());
  EXPECT_THAT(Value<int>::Attach(segment, 8),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("multiples of 64")));
  for (const size_t offset : {size_t{128}, size_t{1} << 40, SIZE_MAX - 63}) {
    EXPECT_THAT(Value<int>::Attach(segment, offset),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("the user area has 128")));
  }
}

TEST(ValueTest, WrongDescriptor) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd writing_end(fds[1]);
  EXPECT_THAT(Value<int>::FromFd(UniqueFd(fds[0])),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("fd ")));
  EXPECT_THAT(Value<int>::FromFd(*CreateMemory("plain", 4096)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("fd ")));
}

TEST(ValueTest, ReadersNeedNoRightToWrite) {
  auto small = Value<int>::CreateAnonymous(1);
  auto large = Value<Reading>::CreateAnonymous({2, 3, "4"});
  auto small_reader = Value<int>::FromFd(Dup(small->fd()), Access::kRead);
  auto large_reader = Value<Reading>::FromFd(Dup(large->fd()), Access::kRead);
  EXPECT_THAT(small_reader->Load(), IsOkAndHolds(1));
  EXPECT_THAT(large_reader->Load(), IsOkAndHolds(Reading{2, 3, "4"}));
  const auto is_denied = StatusIs(absl::StatusCode::kPermissionDenied,
                                  HasSubstr("open it for kReadWrite"));
  EXPECT_THAT(small_reader->Store(2), is_denied);
  EXPECT_THAT(small_reader->Update([](int n) { return n; }), is_denied);
  EXPECT_THAT(large_reader->Store({}), is_denied);
  EXPECT_THAT(large_reader->Update([](Reading r) { return r; }), is_denied);
  // They also wait, without a way to say so.
  const uint64_t seen = large_reader->version();
  ASSERT_THAT(large->Store({}), IsOk());
  EXPECT_THAT(large_reader->WaitForChange(seen), IsOkAndHolds(seen + 1));
}

TEST(ValueTest, ReadersWaitForTheFirstToAttach) {
  const Segment segment = *Segment::CreateAnonymous(64);
  const Segment reader = *Segment::FromFd(Dup(segment.fd()), Access::kRead);
  EXPECT_THAT(Value<int>::Attach(reader, 0),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("nobody has attached")));
  ASSERT_THAT(Value<int>::Attach(segment, 0), IsOk());
  EXPECT_THAT(Value<int>::Attach(reader, 0), IsOk());
}

TEST(ValueTest, UpdateOfManyProcessesLosesNothing) {
  constexpr int kTimes = 2000;
  auto small = Value<int64_t>::CreateAnonymous(0);
  auto large = Value<Block>::CreateAnonymous({});
  const auto add = [&](Child::Side) {
    for (int i = 0; i < kTimes; ++i) {
      if (!small->Update([](int64_t n) { return n + 1; }).ok()) return 1;
      const auto updated = large->Update([](const Block& block) {
        Block next = block;
        for (uint64_t& n : next) ++n;
        return next;
      });
      if (!updated.ok()) return 2;
    }
    return 0;
  };
  std::vector<Child> children;
  for (int i = 0; i < 3; ++i) children.push_back(Child::Fork(add));
  for (Child& child : children) EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(*small->Load(), 3 * kTimes);
  EXPECT_THAT(*large->Load(), Each(uint64_t{3 * kTimes}));
  EXPECT_EQ(large->version(), uint64_t{3 * kTimes + 1});
}

TEST(ValueTest, UpdateReturnsWhatItStored) {
  auto small = Value<int>::CreateAnonymous(20);
  EXPECT_THAT(small->Update([](int n) { return 2 * n; }), IsOkAndHolds(40));
  auto large = Value<std::array<int, 4>>::CreateAnonymous({1});
  EXPECT_THAT(large->Update([](std::array<int, 4> a) {
    a[1] = a[0] + 1;
    return a;
  }),
              IsOkAndHolds(std::array<int, 4>{1, 2}));
}

TEST(ValueTest, AStoppedWriterIsWaitedForButNotByReaders) {
  auto value = Value<Reading>::CreateAnonymous({1, 1, "old"});
  Child writer = Child::Fork([&](Child::Side side) {
    return value->Update([&](Reading reading) {
                  side.Tell();
                  side.Hear();
                  reading.sensor = 2;
                  return reading;
                }).ok()
               ? 0
               : 1;
  });
  ASSERT_TRUE(writer.Hear());
  writer.Stop();
  const absl::Time start = absl::Now();
  EXPECT_THAT(value->Store({}, absl::Milliseconds(100)),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("is alive and keeps the lock")));
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(100));
  EXPECT_EQ(value->Load()->sensor, 1);
  writer.Continue();
  ASSERT_TRUE(writer.Tell());
  EXPECT_EQ(writer.Wait(), 0);
  EXPECT_EQ(value->Load()->sensor, 2);
}

TEST(ValueTest, ADeadWriterBlocksNobody) {
  auto value = Value<Reading>::CreateAnonymous({1, 1, "old"});
  Child writer = Child::Fork([&](Child::Side side) {
    return value
        ->Update([&](Reading reading) {
          side.Tell();
          side.Hear();
          return reading;
        })
        .ok();
  });
  ASSERT_TRUE(writer.Hear());
  writer.Kill();
  EXPECT_EQ(value->Load()->sensor, 1);
  EXPECT_THAT(value->Store({2, 2, "new"}), IsOk());
  EXPECT_EQ(value->Load()->sensor, 2);
}

template <typename T>
class WaitForChangeTest : public ::testing::Test {
 protected:
  static T Number(uint64_t n) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(n);
    } else {
      T block;
      block.fill(n);
      return block;
    }
  }
};
using SmallAndLarge = ::testing::Types<int64_t, Block>;
TYPED_TEST_SUITE(WaitForChangeTest, SmallAndLarge);

TYPED_TEST(WaitForChangeTest, TimesOut) {
  const auto value = Value<TypeParam>::CreateAnonymous();
  const absl::Time start = absl::Now();
  EXPECT_THAT(value->WaitForChange(value->version(), absl::Milliseconds(50)),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("to change from version")));
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(50));
  EXPECT_FALSE(
      value->WaitForChange(value->version(), absl::ZeroDuration()).ok());
}

TYPED_TEST(WaitForChangeTest, ReturnsAtOnceIfThereIsOne) {
  auto value = Value<TypeParam>::CreateAnonymous();
  const uint64_t seen = value->version();
  ASSERT_THAT(value->Store(this->Number(7)), IsOk());
  const uint64_t now = value->version();
  EXPECT_NE(now, seen);
  EXPECT_THAT(value->WaitForChange(seen), IsOkAndHolds(now));
  EXPECT_THAT(value->WaitForChange(seen, -absl::Seconds(1)), IsOkAndHolds(now));
}

TYPED_TEST(WaitForChangeTest, WakesAnotherProcess) {
  auto value = Value<TypeParam>::CreateAnonymous();
  Child child = Child::Fork([&](Child::Side side) {
    uint64_t seen = value->version();
    side.Tell();
    for (uint64_t n = 1; n < 50; ++n) {
      const auto now = value->WaitForChange(seen);
      if (!now.ok() || *value->Load() != this->Number(n)) return 1;
      seen = *now;
      side.Tell();
    }
    return 0;
  });
  ASSERT_TRUE(child.Hear());
  for (uint64_t n = 1; n < 50; ++n) {
    AwaitWaiter(*value);
    ASSERT_THAT(value->Store(this->Number(n)), IsOk());
    ASSERT_TRUE(child.Hear());
  }
  EXPECT_EQ(child.Wait(), 0);
}

TYPED_TEST(WaitForChangeTest, AKilledSleeperIsForgotten) {
  auto value = Value<TypeParam>::CreateAnonymous();
  Child child = Child::Fork([&](Child::Side) {
    return value->WaitForChange(value->version()).ok() ? 0 : 1;
  });
  AwaitWaiter(*value);
  child.Kill();
  ASSERT_THAT(value->Store(this->Number(2)), IsOk());
  EXPECT_EQ(HeaderOf(*value).signal.waiting.load(), 0u);
}

// As if the writer had been killed between the commit and the wake-up.
TYPED_TEST(WaitForChangeTest, ALostWakeUpCostsOnePark) {
  auto value = Value<TypeParam>::CreateAnonymous();
  Child child = Child::Fork([&](Child::Side) {
    return value->WaitForChange(value->version()).ok() ? 0 : 1;
  });
  AwaitWaiter(*value);
  HeaderOf(*value).signal.word.fetch_add(1);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(ValueTest, TheSameValueAgainIsNoChangeUpToEightBytes) {
  auto value = Value<int>::CreateAnonymous(1);
  const uint64_t seen = value->version();
  ASSERT_THAT(value->Store(1), IsOk());
  EXPECT_EQ(value->version(), seen);
  auto large = Value<Reading>::CreateAnonymous({1, 2, "3"});
  ASSERT_THAT(large->Store({1, 2, "3"}), IsOk());
  EXPECT_EQ(large->version(), 2u) << "above, it counts";
}

TEST(ValueTest, ABoolIsTrueOrFalseWhateverAPeerStores) {
  auto value = Value<bool>::CreateAnonymous(false);
  HeaderOf(*value).signal.word.store(0xfe);
  const bool loaded = *value->Load();
  EXPECT_TRUE(loaded);
}

TEST(ValueTest, ScribbledWordsHarmNobody) {
  auto value = Value<Reading>::CreateAnonymous({1, 2, "3"});
  internal::ValueHeader& header = HeaderOf(*value);
  for (const uint64_t garbage :
       {uint64_t{1}, uint64_t{0xffff}, uint64_t{0xdeadbeef00000000}, UINT64_MAX,
        UINT64_MAX - 1, uint64_t{3} << 30}) {
    header.lock.word.store(garbage);
    header.signal.word.store(garbage);
    header.signal.event.store(static_cast<uint32_t>(garbage));
    header.signal.waiting.store(static_cast<uint32_t>(garbage));
    EXPECT_THAT(value->Load(), IsOk());
    const absl::Status stored =
        value->Store({4, 5, "6"}, absl::Milliseconds(1));
    if (stored.ok()) {
      EXPECT_THAT(value->Load(), IsOkAndHolds(Reading{4, 5, "6"}));
    } else {
      // The garbage names a participant that lives: ourselves.
      EXPECT_EQ(stored.code(), absl::StatusCode::kDeadlineExceeded);
      EXPECT_EQ(garbage, 1u);
    }
  }
}

// In seccomp's strict mode any system call but read, write and exit kills.
TEST(ValueTest, NoSystemCallWhileNobodyWaits) {
#if defined(ABSL_HAVE_THREAD_SANITIZER)
  GTEST_SKIP() << "ThreadSanitizer's own thread outlives SYS_exit";
#endif
  auto small = Value<int64_t>::CreateAnonymous(0);
  auto large = Value<Block>::CreateAnonymous({});
  Child child = Child::Fork([&](Child::Side) {
    const Block block = {1};
    if (!large->Store(block).ok()) return 1;  // attaches
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    bool ok = true;
    for (int i = 0; i < 100; ++i) {
      ok &= small->Store(i).ok() && small->Load().ok();
      ok &= small->Update([](int64_t n) { return n + 1; }).ok();
      ok &= large->Store(block).ok() && large->Load().ok();
      ok &= large->Update([](const Block& b) { return b; }).ok();
      ok &= large->version() > 0;
    }
    syscall(SYS_exit, ok ? 0 : 2);  // exit_group is not allowed
    return 3;
  });
  EXPECT_EQ(child.Wait(), 0);
}

}  // namespace
}  // namespace ipc::shm
