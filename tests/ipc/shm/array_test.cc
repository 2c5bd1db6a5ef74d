#include "ipc/shm/array.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/array_layout.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/segment_layout.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::SizeIs;

UniqueFd Dup(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

template <typename T>
Array<T> Make(const std::vector<T>& elements) {
  Array<T> array = *Array<T>::CreateAnonymous(elements.size());
  std::copy(elements.begin(), elements.end(), array.Lock()->span().begin());
  return array;
}

// CPython's _TestArray.f
void SumUp(absl::Span<int> seq) {
  for (size_t i = 1; i < seq.size(); ++i) seq[i] += seq[i - 1];
}

// CPython: test_array
TEST(ArrayTest, Array) {
  std::vector<int> seq = {680, 626, 934, 821, 150, 233, 548, 982, 714, 831};
  Array<int> array = Make(seq);
  EXPECT_EQ(array.size(), seq.size());
  EXPECT_THAT(array.Get(3), IsOkAndHolds(821));
  EXPECT_THAT(*array.Snapshot(), ElementsAreArray(seq));
  std::vector<int> copy(seq.size());
  ASSERT_THAT(array.SnapshotInto(absl::MakeSpan(copy)), IsOk());
  EXPECT_THAT(copy, ElementsAreArray(seq));
  copy.pop_back();
  EXPECT_THAT(array.SnapshotInto(absl::MakeSpan(copy)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("into memory for 9")));

  ASSERT_THAT(array.Set(4, 99), IsOk());
  seq[4] = 99;
  {
    auto guard = array.Lock();
    ASSERT_THAT(guard, IsOk());
    EXPECT_FALSE(guard->previous_owner_died());
    EXPECT_THAT(guard->span().subspan(2, 6),
                ElementsAre(934, 821, 99, 233, 548, 982));
    std::reverse(guard->span().begin(), guard->span().end());
  }
  std::reverse(seq.begin(), seq.end());

  SumUp(absl::MakeSpan(seq));
  Child child = Child::Fork([&](Child::Side) {
    auto same = Array<int>::FromFd(Dup(array.fd()));
    if (!same.ok()) return 1;
    auto guard = same->Lock();
    if (!guard.ok() || guard->previous_owner_died()) return 2;
    SumUp(guard->span());
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_THAT(*array.Snapshot(), ElementsAreArray(seq));
}

// CPython: test_array_from_size
TEST(ArrayTest, ArrayFromSize) {
  Array<int> array = *Array<int>::CreateAnonymous(10);
  EXPECT_EQ(array.size(), 10u);
  EXPECT_THAT(*array.Snapshot(), AllOf(SizeIs(10), Each(0)));
  for (int i = 0; i < 10; ++i) ASSERT_THAT(array.Set(i, i), IsOk());
  EXPECT_THAT(*array.Snapshot(), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

// CPython: test_rawarray
TEST(ArrayTest, RawArray) {
  struct Point {
    double x, y;
  };
  Array<Point> array = *Array<Point>::CreateAnonymous(3);
  ASSERT_THAT(array.Set(2, {1, 2}), IsOk());
  EXPECT_EQ(array.Get(2)->y, 2);
  EXPECT_EQ(array.Snapshot()->at(2).x, 1);
  EXPECT_EQ(array.Get(1)->y, 0);
  Child child = Child::Fork([&](Child::Side) {
    auto same = Array<Point>::FromFd(Dup(array.fd()));
    if (!same.ok() || same->Get(2)->y != 2) return 1;
    return same->Set(1, {3, 4}).ok() ? 0 : 2;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(array.Get(1)->y, 4);
  EXPECT_EQ(array.Get(2)->y, 2);
}

// CPython: test_array_accepts_long
TEST(ArrayTest, ArrayAcceptsLong) {
  Array<int64_t> array = *Array<int64_t>::CreateAnonymous(10L);
  ASSERT_THAT(array.Set(9, int64_t{1} << 40), IsOk());
  EXPECT_THAT(array.Get(9), IsOkAndHolds(int64_t{1} << 40));
}

// CPython: test_getobj_getlock_obj: what a lock of one's own is for there
TEST(ArrayTest, GetobjGetlockObj) {
  Array<int> array = Make<int>({1, 2, 3});
  auto guard = array.Lock();
  ASSERT_THAT(guard, IsOk());
  EXPECT_THAT(array.Lock(absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("is alive and keeps the lock")));
  const typename Array<int>::Guard moved = *std::move(guard);
  EXPECT_FALSE(array.Lock(absl::ZeroDuration()).ok());
  EXPECT_THAT(moved.span(), ElementsAre(1, 2, 3));
}

TEST(ArrayTest, MayBeEmpty) {
  Array<int> array = *Array<int>::CreateAnonymous(0);
  EXPECT_THAT(*array.Snapshot(), SizeIs(0));
  EXPECT_THAT(array.Lock()->span(), SizeIs(0));
  EXPECT_THAT(array.Get(0), StatusIs(absl::StatusCode::kOutOfRange,
                                     HasSubstr("element 0 of an Array of 0")));
  EXPECT_THAT(Array<int>::FromFd(Dup(array.fd())), IsOk());
}

TEST(ArrayTest, BeyondTheEnd) {
  Array<int> array = Make<int>({1, 2, 3});
  EXPECT_THAT(array.Get(3), StatusIs(absl::StatusCode::kOutOfRange,
                                     HasSubstr("element 3 of an Array of 3")));
  EXPECT_THAT(array.Set(SIZE_MAX, 1),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("element ")));
}

TEST(ArrayTest, MoreThanThereCanBe) {
  for (const size_t count : {SIZE_MAX, SIZE_MAX / 8, SIZE_MAX / 8 - 10}) {
    EXPECT_THAT(
        Array<int64_t>::CreateAnonymous(count),
        StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("bytes")));
    EXPECT_THAT(
        Array<int64_t>::Attach(*Segment::CreateAnonymous(64), 0, count),
        StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("takes ")));
  }
}

TEST(ArrayTest, AnotherLayoutIsRefused) {
  const Array<int32_t> array = Make<int32_t>({1, 2, 3, 4});
  const auto is_mismatch =
      StatusIs(absl::StatusCode::kFailedPrecondition,
               AllOf(HasSubstr("has layout 0x"), HasSubstr("there has 0x")));
  EXPECT_THAT(Array<uint32_t>::FromFd(Dup(array.fd())), is_mismatch);
  EXPECT_THAT(Array<int64_t>::FromFd(Dup(array.fd())), is_mismatch);
  EXPECT_THAT(Array<int32_t>::Attach(array.segment(), 0, 3), is_mismatch);
  EXPECT_THAT(Array<int32_t>::Attach(array.segment(), 0, 5),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("the user area has 80")));
  EXPECT_THAT(Array<int32_t>::FromFd(Dup(array.fd())), IsOk());
}

TEST(ArrayTest, SeveralInOneSegment) {
  const size_t size = Array<char>::SizeBytes(3);
  ASSERT_EQ(size, 128u);
  const Segment segment = *Segment::CreateAnonymous(2 * size);
  Array<char> a = *Array<char>::Attach(segment, 0, 3);
  Array<char> b = *Array<char>::Attach(segment, size, 3);
  const auto guard = a.Lock();
  EXPECT_THAT(b.Set(0, 'b'), IsOk()) << "each has its own lock";
  EXPECT_EQ(guard->span()[0], '\0');
}

TEST(ArrayTest, ReadersNeedNoRightToWrite) {
  Array<int> array = Make<int>({1, 2, 3});
  Array<int> reader = *Array<int>::FromFd(Dup(array.fd()), Access::kRead);
  EXPECT_THAT(*reader.Snapshot(), ElementsAre(1, 2, 3));
  const auto is_denied = StatusIs(absl::StatusCode::kPermissionDenied,
                                  HasSubstr("open it for kReadWrite"));
  EXPECT_THAT(reader.Lock(), is_denied);
  EXPECT_THAT(reader.Get(0), is_denied);
  EXPECT_THAT(reader.Set(0, 1), is_denied);
}

TEST(ArrayTest, SnapshotDoesNotWaitForAHolder) {
  Array<int> array = Make<int>({1, 2, 3});
  {
    const auto guard = array.Lock();
    EXPECT_THAT(array.Snapshot(), StatusIs(absl::StatusCode::kUnavailable,
                                           HasSubstr("a holder is at work")));
  }
  EXPECT_THAT(array.Snapshot(), IsOk());
}

// A child that has the lock, has made the array inconsistent, and waits.
Child ForkHolder(Array<int>& array) {
  Child child = Child::Fork([&](Child::Side side) {
    auto guard = array.Lock();
    if (!guard.ok()) return 1;
    guard->span()[0] = -1;
    side.Tell();
    side.Hear();
    guard->span()[0] = 1;
    return 0;
  });
  EXPECT_TRUE(child.Hear());
  return child;
}

TEST(ArrayTest, TheDeathOfAHolderIsTold) {
  Array<int> array = Make<int>({1, 2, 3});
  ForkHolder(array).Kill();
  {
    const auto guard = array.Lock();
    ASSERT_THAT(guard, IsOk());
    EXPECT_TRUE(guard->previous_owner_died());
    EXPECT_EQ(guard->span()[0], -1);
  }
  // Nobody has repaired it.
  const auto is_lost = StatusIs(absl::StatusCode::kDataLoss,
                                HasSubstr("a holder died while changing it"));
  EXPECT_THAT(array.Get(0), is_lost);
  EXPECT_THAT(array.Set(0, 1), is_lost);
  EXPECT_THAT(array.Snapshot(), is_lost);
  {
    auto guard = array.Lock();
    EXPECT_TRUE(guard->previous_owner_died());
    guard->span()[0] = 1;
    guard->MarkConsistent();
    EXPECT_FALSE(guard->previous_owner_died());
  }
  EXPECT_FALSE(array.Lock()->previous_owner_died());
  EXPECT_THAT(*array.Snapshot(), ElementsAre(1, 2, 3));
}

TEST(ArrayTest, TheDeathOfOneWhoRepairsIsToldToo) {
  Array<int> array = Make<int>({1, 2, 3});
  ForkHolder(array).Kill();
  ForkHolder(array).Kill();
  auto guard = array.Lock();
  EXPECT_TRUE(guard->previous_owner_died());
  guard->MarkConsistent();
}

TEST(ArrayTest, ADeathWakesThoseWhoWait) {
  Array<int> array = Make<int>({1, 2, 3});
  Child holder = ForkHolder(array);
  std::vector<Child> waiters;
  for (int i = 0; i < 3; ++i) {
    waiters.push_back(Child::Fork([&](Child::Side side) {
      side.Tell();
      auto guard = array.Lock();
      if (!guard.ok()) return 1;
      if (guard->previous_owner_died()) guard->MarkConsistent();
      return 0;
    }));
    ASSERT_TRUE(waiters.back().Hear());
  }
  holder.Kill();
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), 0);
  EXPECT_FALSE(array.Lock()->previous_owner_died());
}

TEST(ArrayTest, AStoppedHolderIsNotRobbed) {
  Array<int> array = Make<int>({1, 2, 3});
  Child holder = ForkHolder(array);
  holder.Stop();
  const absl::Time start = absl::Now();
  EXPECT_THAT(array.Lock(absl::Milliseconds(300)),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("is alive and keeps the lock")));
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(300));
  holder.Continue();
  ASSERT_TRUE(holder.Tell());
  auto guard = array.Lock();
  ASSERT_THAT(guard, IsOk());
  EXPECT_FALSE(guard->previous_owner_died());
  EXPECT_EQ(guard->span()[0], 1);
  EXPECT_EQ(holder.Wait(), 0);
}

TEST(ArrayTest, AForkedChildDoesNotHoldWhatItsParentHolds) {
  Array<int> array = Make<int>({1, 2, 3});
  auto guard = array.Lock();
  Child child = Child::Fork([&](Child::Side) {
    // Destroyed here, it must not unlock.
    { const auto inherited = *std::move(guard); }
    return array.Lock(absl::ZeroDuration()).ok() ? 1 : 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_FALSE(array.Lock(absl::ZeroDuration()).ok());
  EXPECT_THAT(array.Snapshot(), StatusIs(absl::StatusCode::kUnavailable,
                                         HasSubstr("a holder is at work")));
}

TEST(ArrayTest, AChildDoesNotKeepItsDeadParentAlive) {
  Array<int> array = Make<int>({1, 2, 3});
  Child parent = Child::Fork([&](Child::Side side) {
    const auto guard = array.Lock();
    Child child = Child::Fork([](Child::Side child_side) {
      prctl(PR_SET_PDEATHSIG, 0);  // outlive the parent
      child_side.Tell();
      child_side.Hear();  // until the parent is dead
      pause();
      return 0;
    });
    child.Hear();
    // The child's pid goes out so that the test can end it.
    auto& slot = array.Lock(absl::ZeroDuration()).ok() ? guard->span()[1]
                                                       : guard->span()[0];
    slot = child.pid();
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(parent.Hear());
  parent.Kill();
  auto guard = array.Lock();
  ASSERT_THAT(guard, IsOk());
  EXPECT_TRUE(guard->previous_owner_died());
  const pid_t child = guard->span()[0];
  ASSERT_EQ(kill(child, 0), 0) << "the child is alive";
  kill(child, SIGKILL);
}

TEST(ArrayTest, HoldersTakeTurns) {
  constexpr int kTimes = 3000;
  Array<int> array = *Array<int>::CreateAnonymous(100);
  const auto count = [&](Child::Side) {
    for (int i = 0; i < kTimes; ++i) {
      auto guard = array.Lock();
      if (!guard.ok()) return 1;
      for (int& n : guard->span()) ++n;
    }
    return 0;
  };
  std::vector<Child> children;
  for (int i = 0; i < 4; ++i) children.push_back(Child::Fork(count));
  for (Child& child : children) EXPECT_EQ(child.Wait(), 0);
  EXPECT_THAT(*array.Snapshot(), Each(4 * kTimes));
}

TEST(ArrayTest, ScribbledWordsHarmNobody) {
  Array<int> array = Make<int>({1, 2, 3});
  auto& header =
      *reinterpret_cast<internal::ArrayHeader*>(array.segment().bytes().data());
  for (const uint64_t garbage :
       {uint64_t{0xffff}, uint64_t{0xdeadbeef00000000}, UINT64_MAX}) {
    header.lock.word.store(garbage);
    header.sequence.store(garbage | 1);
    EXPECT_FALSE(array.Snapshot().ok());
    auto guard = array.Lock(absl::Seconds(10));
    ASSERT_THAT(guard, IsOk());
    EXPECT_TRUE(guard->previous_owner_died());
    guard->MarkConsistent();
  }
  // A peer frees and takes our lock: we notice and leave it alone.
  absl::optional<Array<int>::Guard> guard = *array.Lock();
  header.lock.word.store(0xffff);
  guard.reset();
  EXPECT_EQ(header.lock.word.load(), 0xffffu);
}

// As happens to a process that closes descriptors it does not own.
TEST(ArrayTest, OneThatWasHeldForDeadIsAliveAgain) {
  Array<int> array = Make<int>({1, 2, 3});
  Array<int> other = *Array<int>::FromFd(Dup(array.fd()));
  auto& participant = *reinterpret_cast<ParticipantTable::Word*>(
      array.segment().bytes().data() - internal::HeaderSize(256) +
      sizeof(internal::SegmentHeader) +
      array.segment().Self()->index * sizeof(ParticipantTable::Word));
  {
    auto robbed = array.Lock();
    participant.store(0);
    auto guard = other.Lock();
    ASSERT_THAT(guard, IsOk());
    EXPECT_TRUE(guard->previous_owner_died());
    guard->MarkConsistent();
    { const auto gone = *std::move(robbed); }
    EXPECT_FALSE(array.Lock(absl::ZeroDuration()).ok()) << "left as it was";
  }
  const auto guard = array.Lock();
  ASSERT_THAT(guard, IsOk());
  EXPECT_FALSE(guard->previous_owner_died());
  EXPECT_THAT(other.Lock(absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("is alive and keeps the lock")));
}

// In seccomp's strict mode any system call but read, write and exit kills.
TEST(ArrayTest, NoSystemCallWhileNobodyWaits) {
#if defined(ABSL_HAVE_THREAD_SANITIZER)
  GTEST_SKIP() << "ThreadSanitizer's own thread outlives SYS_exit";
#endif
  Array<int> array = *Array<int>::CreateAnonymous(10);
  Child child = Child::Fork([&](Child::Side) {
    if (!array.Lock().ok()) return 1;  // attaches
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    bool ok = true;
    for (int i = 0; i < 100; ++i) {
      ok &= array.Lock().ok();
      ok &= array.Set(3, i).ok();
      ok &= *array.Get(3) == i;
    }
    syscall(SYS_exit, ok ? 0 : 2);  // exit_group is not allowed
    return 3;
  });
  EXPECT_EQ(child.Wait(), 0);
}

TEST(ArrayTest, RollBackTakesBackWhatWasProtected) {
  auto array = Array<int>::CreateAnonymous(4, {.undo = 4});
  ASSERT_THAT(array, IsOk());
  auto guard = array->Lock();
  guard->span()[0] = 1;  // not protected
  auto pair = guard->Protect(1, 2);
  ASSERT_THAT(pair, IsOk());
  ASSERT_THAT(*pair, SizeIs(2));
  (*pair)[0] = 2;
  (*pair)[1] = 3;
  // Protected anew it is taken back to what it was at first.
  ASSERT_THAT(guard->Protect(1, 1), IsOk());
  guard->span()[1] = 4;
  guard->RollBack();
  EXPECT_THAT(guard->span(), ElementsAre(1, 0, 0, 0));
  EXPECT_FALSE(guard->rolled_back()) << "nobody died";
}

TEST(ArrayTest, WhatAKilledHolderProtectedIsPutBack) {
  auto array = Array<int>::CreateAnonymous(4, {.undo = 4});
  ASSERT_THAT(array, IsOk());
  for (int i = 0; i < 4; ++i) ASSERT_THAT(array->Set(i, i), IsOk());
  Child child = Child::Fork([&](Child::Side side) {
    auto same =
        Array<int>::FromFd(Dup(array->fd()), Access::kReadWrite, {.undo = 4});
    auto guard = same->Lock();
    for (int i = 0; i < 3; ++i) (*guard->Protect(i, 1))[0] = 10 + i;
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(child.Hear());
  child.Kill();
  // Not yet: whoever locks puts it back.
  EXPECT_THAT(array->Snapshot(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("")));
  {
    auto guard = array->Lock(absl::Seconds(10));
    ASSERT_THAT(guard, IsOk());
    EXPECT_TRUE(guard->previous_owner_died());
    EXPECT_TRUE(guard->rolled_back());
    EXPECT_THAT(guard->span(), ElementsAre(0, 1, 2, 3));
  }
  EXPECT_FALSE(array->Lock()->previous_owner_died()) << "told twice";
  EXPECT_THAT(*array->Snapshot(), ElementsAre(0, 1, 2, 3));
}

// Not DataLoss, as there is nothing left to repair.
TEST(ArrayTest, ASnapshotWaitsForAnHeirAsForAnyHolder) {
  for (const size_t undo : {0, 4}) {
    auto array = Array<int>::CreateAnonymous(4, {.undo = undo});
    Child child = Child::Fork([&](Child::Side side) {
      const auto guard = array->Lock();
      side.Tell();
      side.Hear();
      return 0;
    });
    ASSERT_TRUE(child.Hear());
    child.Kill();
    auto guard = array->Lock();
    ASSERT_THAT(guard, IsOk());
    EXPECT_TRUE(guard->previous_owner_died());
    if (undo == 0) {
      EXPECT_THAT(array->Snapshot(),
                  StatusIs(absl::StatusCode::kDataLoss, HasSubstr("")));
      guard->MarkConsistent();
    }
    EXPECT_THAT(array->Snapshot(),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("")));
  }
}

TEST(ArrayTest, ASetPutsBackWhatAKilledHolderProtected) {
  auto array = Array<int>::CreateAnonymous(2, {.undo = 1});
  Child child = Child::Fork([&](Child::Side side) {
    auto guard = array->Lock();
    (*guard->Protect(0, 1))[0] = 1;
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(child.Hear());
  child.Kill();
  EXPECT_THAT(array->Set(1, 2), IsOk());
  EXPECT_THAT(*array->Snapshot(), ElementsAre(0, 2));
}

TEST(ArrayTest, ProtectHasLimits) {
  auto array = Array<int>::CreateAnonymous(16, {.undo = 2});
  auto guard = array->Lock();
  EXPECT_THAT(guard->Protect(17, 0),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("of 16")));
  EXPECT_THAT(guard->Protect(1, 16),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("of 16")));
  EXPECT_THAT(guard->Protect(16, 0), IsOk());
  EXPECT_THAT(guard->Protect(0, 16),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("Options::undo")));
  EXPECT_THAT(guard->Protect(0, 1), IsOk());
  EXPECT_THAT(guard->Protect(7, 1), IsOk());
  EXPECT_THAT(guard->Protect(3, 1),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("")));
  guard->RollBack();
  EXPECT_THAT(guard->Protect(3, 1), IsOk()) << "there is room again";

  Array<int> plain = Make<int>({1, 2});
  EXPECT_THAT(plain.Lock()->Protect(0, 1),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("no undo log")));
  // Who attaches otherwise would find the elements elsewhere.
  EXPECT_THAT(Array<int>::FromFd(Dup(array->fd())),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
  EXPECT_THAT(Array<int>::CreateAnonymous(1, {.undo = SIZE_MAX / 2}),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("")));
}

// A log that a peer has scribbled over: nothing is put back, and so it is told.
TEST(ArrayTest, ARubbishLogIsToldAsADeath) {
  auto array = Array<int>::CreateAnonymous(4, {.undo = 4});
  auto* const log = reinterpret_cast<uint64_t*>(
      array->segment().bytes().data() + sizeof(internal::ArrayHeader));
  // used; and offset and bytes of the first record.
  struct Rubbish {
    uint64_t used;
    uint64_t offset;
    uint64_t bytes;
  };
  for (const Rubbish& rubbish : std::vector<Rubbish>{{1 << 20, 0, 4},
                                                     {24, 16, 4},
                                                     {24, 0, 17},
                                                     {24, UINT64_MAX, 4},
                                                     {24, 0, UINT64_MAX},
                                                     {24, 0, 12},
                                                     {8, 0, 4}}) {
    Child child = Child::Fork([&](Child::Side side) {
      auto guard = array->Lock();
      (*guard->Protect(0, 1))[0] = 1;
      log[0] = rubbish.used;
      log[8] = rubbish.offset;
      log[9] = rubbish.bytes;
      side.Tell();
      side.Hear();
      return 0;
    });
    ASSERT_TRUE(child.Hear());
    child.Kill();
    {
      auto guard = array->Lock();
      EXPECT_TRUE(guard->previous_owner_died());
      EXPECT_FALSE(guard->rolled_back())
          << rubbish.used << " " << rubbish.offset;
    }
    EXPECT_THAT(array->Get(0),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("repair")));
    auto guard = array->Lock();
    guard->MarkConsistent();
  }
  EXPECT_FALSE(array->Lock()->previous_owner_died());
}

}  // namespace
}  // namespace ipc::shm
