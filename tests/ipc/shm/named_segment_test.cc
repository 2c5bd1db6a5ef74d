// Segments under a name, in a /dev/shm of the test's own, for those of others
// that are stale are not ours to remove; and in one that is small.
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/participants.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/arena.h"
#include "ipc/shm/array.h"
#include "ipc/shm/mutex.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/segment_layout.h"
#include "ipc/shm/semaphore.h"
#include "ipc/shm/value.h"
#include "tests/testing/child.h"
#include "tests/testing/own_dev_shm.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/unique_name.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class NamedSegmentTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { testing::EnterOwnDevShm(); }
  ~NamedSegmentTest() override { unlink(path_.c_str()); }

  bool Exists() const { return access(path_.c_str(), F_OK) == 0; }
  // What List says of ours.
  std::vector<Segment::Listing> Ours() const {
    std::vector<Segment::Listing> ours;
    const auto all = Segment::List();
    EXPECT_THAT(all, IsOk());
    for (const Segment::Listing& listing : *all) {
      if (listing.name == name_) ours.push_back(listing);
    }
    return ours;
  }

  const std::string name_ = testing::UniqueName("parley_named_segment_test");
  const std::string path_ = absl::StrCat("/dev/shm/", name_);
};

TEST_F(NamedSegmentTest, IsSharedByItsName) {
  auto segment = Segment::Create(name_, 1000);
  ASSERT_THAT(segment, IsOk());
  EXPECT_EQ(segment->bytes().size(), 1000u);
  EXPECT_TRUE(segment->has_name());
  auto value = Value<int64_t>::Attach(*segment, 0);
  ASSERT_THAT(value->Store(7), IsOk());
  Child child = Child::Fork([&](Child::Side) {
    auto same = Segment::Open(absl::StrCat("/", name_));
    if (!same.ok()) return 1;
    auto other = Value<int64_t>::Attach(*same, 0);
    return other->Load().ok() && *other->Load() == 7 && other->Store(8).ok()
               ? 0
               : 2;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_THAT(value->Load(), IsOkAndHolds(8));

  struct stat file;
  ASSERT_EQ(stat(path_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777, 0600u);
  EXPECT_GE(file.st_blocks * 512, file.st_size) << "allocated";

  EXPECT_THAT(Segment::Create(name_, 1000),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(name_)));
  auto reading = Segment::Open(name_, Access::kRead);
  ASSERT_THAT(reading, IsOk());
  EXPECT_FALSE(reading->writable());

  EXPECT_THAT(Segment::Unlink(name_), IsOk());
  EXPECT_FALSE(segment->has_name());
  EXPECT_THAT(value->Load(), IsOkAndHolds(8)) << "who uses it keeps it";
  EXPECT_THAT(Segment::Open(name_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(name_)));
  EXPECT_THAT(Segment::Unlink(name_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(name_)));
}

TEST_F(NamedSegmentTest, LocksHaveNamesToo) {
  auto semaphore = Semaphore::Create(name_, 1);
  ASSERT_THAT(semaphore, IsOk());
  EXPECT_THAT(
      Semaphore::Open(name_, 2),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has layout")));
  auto permit = semaphore->Acquire();
  Child child = Child::Fork([&](Child::Side) {
    auto same = Semaphore::Open(name_, 1);
    return same.ok() && !same->Acquire(absl::ZeroDuration()).ok() ? 0 : 1;
  });
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(NamedSegmentTest, BadNames) {
  for (const std::string& name : {std::string(), std::string("a/b"),
                                  std::string(".."), std::string(300, 'x')}) {
    EXPECT_THAT(
        Segment::Create(name, 64),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("name")));
    EXPECT_THAT(
        Segment::Open(name),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("name")));
  }
}

TEST_F(NamedSegmentTest, WhatItIsNot) {
  // A squatter's file, too small, of other content.
  std::ofstream(path_) << "hello";
  ASSERT_EQ(chmod(path_.c_str(), 0600), 0);
  EXPECT_THAT(Segment::Open(name_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("is not a Parley segment")));
  EXPECT_THAT(Segment::Create(name_, 64),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(name_)));
  ASSERT_EQ(chmod(path_.c_str(), 0666), 0);
  EXPECT_THAT(Segment::Open(name_),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("nobody else may access it")));
  ASSERT_EQ(unlink(path_.c_str()), 0);
  ASSERT_EQ(symlink("/etc/passwd", path_.c_str()), 0);
  EXPECT_THAT(Segment::Open(name_),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("symbolic link")));
  ASSERT_EQ(unlink(path_.c_str()), 0);
  ASSERT_EQ(mkdir(path_.c_str(), 0700), 0);
  EXPECT_FALSE(Segment::Open(name_).ok());
  ASSERT_EQ(rmdir(path_.c_str()), 0);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_FALSE(Segment::Open(name_).ok());
}

TEST_F(NamedSegmentTest, AnotherUsersIsRefused) {
  { ASSERT_THAT(Segment::Create(name_, 64), IsOk()); }
  const unsigned user = testing::GiveAway(path_);
  // Another user's that we may not even open the kernel refuses already.
  const bool may_open = access(path_.c_str(), R_OK | W_OK) == 0;
  EXPECT_THAT(
      Segment::Open(name_),
      StatusIs(absl::StatusCode::kPermissionDenied,
               HasSubstr(may_open ? absl::StrCat("belongs to user ", user)
                                  : name_)));
}

TEST_F(NamedSegmentTest, TruncatedOrOfAnotherVersion) {
  { ASSERT_THAT(Segment::Create(name_, 100'000), IsOk()); }
  struct stat file;
  ASSERT_EQ(stat(path_.c_str(), &file), 0);
  for (const off_t size :
       {file.st_size - 1, off_t{4096}, off_t{63}, off_t{20}, off_t{0}}) {
    ASSERT_EQ(truncate(path_.c_str(), size), 0);
    const auto segment = Segment::Open(name_);
    EXPECT_THAT(segment.status().code(),
                ::testing::AnyOf(absl::StatusCode::kDataLoss,
                                 absl::StatusCode::kInvalidArgument,
                                 absl::StatusCode::kFailedPrecondition))
        << size << ": " << segment.status();
  }
  ASSERT_EQ(unlink(path_.c_str()), 0);
  { ASSERT_THAT(Segment::Create(name_, 64), IsOk()); }
  const uint16_t major = internal::SegmentHeader::kAbiMajor + 1;
  const UniqueFd fd(open(path_.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(pwrite(fd.get(), &major, sizeof(major), 12), 2);
  EXPECT_THAT(Segment::Open(name_),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("has layout version 2.")));
}

// A hole would be SIGBUS if /dev/shm were full by the time it is touched.
TEST_F(NamedSegmentTest, HolesAreFilledWhenItIsOpened) {
  { ASSERT_THAT(Segment::Create(name_, 100'000), IsOk()); }
  const UniqueFd fd(open(path_.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      8192, 65536),
            0);
  ASSERT_THAT(Segment::Open(name_), IsOk());
  struct stat file;
  ASSERT_EQ(fstat(fd.get(), &file), 0);
  EXPECT_GE(file.st_blocks * 512, file.st_size);
}

TEST_F(NamedSegmentTest, AListTellsWhoUsesIt) {
  EXPECT_EQ(Ours().size(), 0u);
  auto segment = Segment::Create(name_, 4096);
  ASSERT_THAT(segment, IsOk());
  ASSERT_EQ(Ours().size(), 1u);
  EXPECT_EQ(Ours()[0].bytes, 4096u);
  EXPECT_EQ(Ours()[0].alive, 1);
  EXPECT_EQ(Ours()[0].dead, 0);
  EXPECT_TRUE(Ours()[0].in_use);
  Child child = Child::Fork([&](Child::Side side) {
    const auto same = Segment::Open(name_);
    side.Tell();
    side.Hear();
    return same.ok() ? 0 : 1;
  });
  ASSERT_TRUE(child.Hear());
  EXPECT_EQ(Ours()[0].alive, 2);
  child.Kill();
  EXPECT_EQ(Ours()[0].alive, 1);
  EXPECT_EQ(Ours()[0].dead, 1);
}

TEST_F(NamedSegmentTest, OnlyTheStaleAreRemoved) {
  Child creator = Child::Fork([&](Child::Side side) {
    auto segment = Segment::Create(name_, 4096);
    Mutex::Attach(*segment, 0)->lock();
    side.Tell();
    side.Hear();
    return segment.ok() ? 0 : 1;
  });
  ASSERT_TRUE(creator.Hear());
  EXPECT_THAT(Segment::RemoveStale(), IsOkAndHolds(Not(Contains(name_))))
      << "it is alive";
  creator.Stop();
  EXPECT_THAT(Segment::RemoveStale(), IsOkAndHolds(Not(Contains(name_))))
      << "it is stopped, not dead";
  creator.Continue();
  {
    // One that only reads it keeps it, though it is no participant.
    const auto reader = Segment::Open(name_, Access::kRead);
    ASSERT_THAT(reader, IsOk());
    creator.Kill();
    EXPECT_THAT(Segment::RemoveStale(), IsOkAndHolds(Not(Contains(name_))));
    EXPECT_TRUE(Exists());
  }
  EXPECT_THAT(Segment::RemoveStale(), IsOkAndHolds(Contains(name_)));
  EXPECT_FALSE(Exists());
  EXPECT_THAT(Segment::RemoveStale(), IsOkAndHolds(Not(Contains(name_))));
}

// Python's resource tracker removes what others still use, and what was left on
// purpose.
TEST_F(NamedSegmentTest, WhatWasLeftInOrderStays) {
  Child creator = Child::Fork(
      [&](Child::Side) { return Segment::Create(name_, 64).ok() ? 0 : 1; });
  EXPECT_EQ(creator.Wait(), 0);
  EXPECT_THAT(Segment::RemoveStale(), IsOkAndHolds(Not(Contains(name_))));
  EXPECT_THAT(Segment::Open(name_), IsOk());
}

// The creator was killed, but then somebody used it and left it as he wanted.
TEST_F(NamedSegmentTest, WhatWasLeftInOrderAfterADeathStays) {
  Child creator = Child::Fork([&](Child::Side side) {
    const auto segment = Segment::Create(name_, 4096);
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(creator.Hear());
  {
    auto before = Segment::Open(name_);
    creator.Kill();
    auto after = Segment::Open(name_);
    ASSERT_THAT(after, IsOk());
    EXPECT_THAT(Array<int64_t>::Attach(*after, 0, 10)->Set(3, 3), IsOk());
  }
  EXPECT_THAT(Segment::RemoveStale(), IsOkAndHolds(Not(Contains(name_))));
  EXPECT_TRUE(Exists());
}

// It inherits the segment, and is no participant before its first lock.
TEST_F(NamedSegmentTest, AForkedChildOfADeadCreatorUsesIt) {
  Child child = Child::Fork([&](Child::Side side) {
    const auto segment = Segment::Create(name_, 4096);
    const pid_t creator = getpid();
    if (fork() != 0) return pause();
    // The test hears when the creator is dead: it is the child's parent.
    kill(creator, SIGKILL);
    while (getppid() == creator) sched_yield();
    side.Tell();
    side.Hear();
    const bool is_there = segment->has_name();
    side.Tell();
    side.Hear();
    _exit(is_there ? 0 : 1);
  });
  ASSERT_TRUE(child.Hear());
  EXPECT_THAT(Segment::RemoveStale(), IsOkAndHolds(Not(Contains(name_))));
  EXPECT_TRUE(Exists());
  ASSERT_EQ(Ours().size(), 1u);
  EXPECT_TRUE(Ours().front().in_use);
  child.Tell();
  ASSERT_TRUE(child.Hear());
  child.Tell();
  // When that one has ended, nobody is left.
  while (Ours().size() == 1 && Ours().front().in_use) sched_yield();
  EXPECT_THAT(Segment::RemoveStale(), IsOkAndHolds(Contains(name_)));
}

TEST_F(NamedSegmentTest, WhoHasItsDescriptorUsesIt) {
  Child creator = Child::Fork([&](Child::Side side) {
    const auto segment = Segment::Create(name_, 4096);
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(creator.Hear());
  {
    const auto reader = Segment::FromFd(
        UniqueFd(open(path_.c_str(), O_RDONLY | O_CLOEXEC)), Access::kRead);
    ASSERT_THAT(reader, IsOk());
    creator.Kill();
    EXPECT_THAT(Segment::RemoveStale(), IsOkAndHolds(Not(Contains(name_))));
    EXPECT_TRUE(reader->has_name());
  }
  EXPECT_THAT(Segment::RemoveStale(), IsOkAndHolds(Contains(name_)));
}

// Else RemoveStale could remove what another one has put in its place.
TEST_F(NamedSegmentTest, NobodyUnlinksWhatIsAboutToBeRemoved) {
  ASSERT_THAT(Segment::Create(name_, 64), IsOk());
  {
    const UniqueFd claim(open(path_.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_THAT(ClaimFile(claim.get()), IsOkAndHolds(true));
    EXPECT_THAT(Segment::Unlink(name_),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("")));
    EXPECT_TRUE(Exists());
  }
  EXPECT_THAT(Segment::Unlink(name_), IsOk());
  EXPECT_FALSE(Exists());
}

TEST_F(NamedSegmentTest, WhatCannotBeCreatedLeavesNoName) {
  EXPECT_THAT(Arena::Create(name_, size_t{4096}, size_t{12}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  EXPECT_FALSE(Exists());
  EXPECT_THAT(Semaphore::Create(name_, uint32_t{0xffffffff}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  EXPECT_FALSE(Exists());
  EXPECT_THAT(Semaphore::Create(name_, uint32_t{1}), IsOk());
}

// By a socket a descriptor may come from anybody.
TEST_F(NamedSegmentTest, AFileThatOthersCouldTruncateIsRefused) {
  const auto segment = Segment::Create(name_, 4096);
  ASSERT_EQ(chmod(path_.c_str(), 0666), 0);
  EXPECT_THAT(
      Segment::FromFd(UniqueFd(open(path_.c_str(), O_RDWR | O_CLOEXEC))),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("0600")));
}

TEST_F(NamedSegmentTest, ForeignFilesStayAsTheyAre) {
  const UniqueFd fd(open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(ftruncate(fd.get(), 8 << 20), 0);
  EXPECT_THAT(Segment::Open(name_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  struct stat stat;
  ASSERT_EQ(fstat(fd.get(), &stat), 0);
  EXPECT_EQ(stat.st_blocks, 0);
}

TEST_F(NamedSegmentTest, WhileOneIsRemovedOthersOpenTheNextOrNone) {
  for (int i = 0; i < 50; ++i) {
    Child creator = Child::Fork([&](Child::Side side) {
      const auto segment = Segment::Create(name_, 64);
      side.Tell();
      side.Hear();
      return 0;
    });
    ASSERT_TRUE(creator.Hear());
    Child opener = Child::Fork([&](Child::Side side) {
      side.Tell();
      while (true) {
        // For reading: a participant that leaves in order keeps it.
        const auto segment = Segment::Open(name_, Access::kRead);
        if (absl::IsNotFound(segment.status())) return 0;
        if (!segment.ok()) return 1;
        if (!segment->has_name()) return 2;
      }
    });
    ASSERT_TRUE(opener.Hear());
    creator.Kill();
    // In the moments when nobody has it open.
    while (Exists()) ASSERT_THAT(Segment::RemoveStale(), IsOk());
    ASSERT_EQ(opener.Wait(), 0);
  }
}

TEST(SegmentSealTest, AfterItOnlyReadersCanCome) {
  auto segment = Segment::CreateAnonymous(4096);
  auto value = Value<int64_t>::Attach(*segment, 0);
  const auto fd = [&] {
    return UniqueFd(fcntl(segment->fd(), F_DUPFD_CLOEXEC, 0));
  };
  ASSERT_THAT(segment->SealForReaders(), IsOk());
  EXPECT_FALSE(Segment::FromFd(fd()).ok());
  auto reader = Segment::FromFd(fd(), Access::kRead);
  ASSERT_THAT(reader, IsOk());
  ASSERT_THAT(value->Store(9), IsOk()) << "its writer still writes";
  EXPECT_THAT(Value<int64_t>::Attach(*reader, 0)->Load(), IsOkAndHolds(9));
  EXPECT_EQ(write(fd().get(), "x", 1), -1);
  EXPECT_THAT(segment->SealForReaders(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
}

// What /proc/meminfo says of `field`.
int64_t MemoryInfo(const std::string& field) {
  std::ifstream file("/proc/meminfo");
  for (std::string name; file >> name;) {
    int64_t value = 0;
    if (name == field + ":" && file >> value) return value;
  }
  return 0;
}

// How many the machine keeps is not for a test to change, as it is the
// machine's.
TEST(SegmentHugePagesTest, AreTakenWhereThereAreSome) {
  const int64_t free = MemoryInfo("HugePages_Free");
  const int64_t available = free - MemoryInfo("HugePages_Rsvd");
  const auto segment = Segment::CreateAnonymous(100'000, {.huge_pages = true});
  ASSERT_THAT(segment, IsOk());
  printf("%d huge pages of this machine are free: %s\n",
         static_cast<int>(available),
         available > 0 ? "taken" : "NOT TESTED whether they would be taken");
  EXPECT_EQ(segment->huge_pages(), available > 0);
  if (segment->huge_pages()) {
    EXPECT_LT(MemoryInfo("HugePages_Free"), free);
    struct stat file;
    ASSERT_EQ(fstat(segment->fd(), &file), 0);
    EXPECT_EQ(file.st_blksize, MemoryInfo("Hugepagesize") * 1024);
  }
  EXPECT_EQ(segment->bytes().size(), 100'000u);
  auto array = Array<uint64_t>::Attach(*segment, 0, 12'000);
  ASSERT_THAT(array->Set(11'999, 7), IsOk());
  EXPECT_THAT(array->Get(11'999), IsOkAndHolds(7u));
}

TEST(SmallDevShmTest, AFullOneIsAnErrorAndNeverSigbus) {
  Child child = Child::Fork([](Child::Side) {
    if (!testing::EnterOwnDevShm("size=1m")) return 8;
    // Too large at once, and then a second one that does not fit any more.
    if (Segment::Create("a", 2 << 20).status().code() !=
        absl::StatusCode::kResourceExhausted) {
      return 1;
    }
    auto first = Segment::Create("b", 700'000);
    if (!first.ok()) return 2;
    if (Segment::Create("c", 700'000).status().code() !=
        absl::StatusCode::kResourceExhausted) {
      return 3;
    }
    if (access("/dev/shm/a", F_OK) == 0 || access("/dev/shm/c", F_OK) == 0) {
      return 4;
    }
    // Every byte of the first one is there.
    memset(first->bytes().data(), 1, first->bytes().size());
    // A file with a hole, for which there is no room: by somebody else's hand.
    const UniqueFd fd(open("/dev/shm/b", O_RDWR | O_CLOEXEC));
    if (fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192,
                  600'000) != 0) {
      return 5;
    }
    if (!Segment::Create("d", 600'000).ok()) return 6;
    if (Segment::Open("b").status().code() !=
        absl::StatusCode::kResourceExhausted) {
      return 7;
    }
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
}

}  // namespace
}  // namespace ipc::shm
