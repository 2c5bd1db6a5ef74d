// Named segments among other files and other programs: by name for reading,
// what errors tell, what is left alone.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/array.h"
#include "ipc/shm/event.h"
#include "ipc/shm/segment.h"
#include "ipc/shm/value.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/unique_name.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

class NamedSegmentPeersTest : public ::testing::Test {
 protected:
  ~NamedSegmentPeersTest() override {
    unlink(path_.c_str());
    rmdir(path_.c_str());
  }

  const std::string name_ = testing::UniqueName("parley_peers_test");
  const std::string path_ = absl::StrCat("/dev/shm/", name_);
};

// That `fd` cannot be made to write by whoever gets it.
bool IsForReading(int fd) {
  return (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
}

TEST_F(NamedSegmentPeersTest, IsOpenedForReading) {
  { ASSERT_THAT(Segment::Create(name_, 64), IsOk()); }
  ASSERT_EQ(chmod(path_.c_str(), 0400), 0);
  const auto segment = Segment::Open(name_, Access::kRead);
  ASSERT_THAT(segment, IsOk());
  EXPECT_FALSE(segment->writable());
  EXPECT_TRUE(IsForReading(segment->fd()));
  if (geteuid() != 0) {
    EXPECT_THAT(Segment::Open(name_),
                StatusIs(absl::StatusCode::kPermissionDenied,
                         HasSubstr("for reading only")));
  }
  EXPECT_THAT(Segment::Unlink(name_), IsOk());
}

// A value of this size, created under a name and followed for reading.
template <typename T>
void FollowForReading(const std::string& name, const T& first,
                      const T& second) {
  auto value = Value<T>::Create(name, first);
  ASSERT_THAT(value, IsOk());
  Child reader = Child::Fork([&](Child::Side side) {
    const auto same = Value<T>::Open(name, Access::kRead);
    if (!same.ok() || !(*same->Load() == first)) return 1;
    if (!IsForReading(same->fd())) return 2;
    const uint64_t seen = same->version();
    side.Tell();
    if (!same->WaitForChange(seen, kPatience).ok()) return 3;
    return *same->Load() == second ? 0 : 4;
  });
  ASSERT_TRUE(reader.Hear());
  reader.AwaitSleep();
  ASSERT_THAT(value->Store(second), IsOk());
  EXPECT_EQ(reader.Wait(), 0);
  EXPECT_THAT(Segment::Unlink(name), IsOk());
}

TEST_F(NamedSegmentPeersTest, ValuesAreFollowedForReading) {
  FollowForReading<int64_t>(name_, 1, 2);
  FollowForReading<std::array<int64_t, 5>>(name_, {1, 1, 1, 1, 1},
                                           {2, 2, 2, 2, 2});
}

TEST_F(NamedSegmentPeersTest, ArraysAreReadForReading) {
  for (const size_t undo : {0, 2}) {
    const Array<int>::Options options = {.undo = undo};
    auto array = Array<int>::Create(name_, 3, options);
    ASSERT_THAT(array, IsOk());
    ASSERT_THAT(array->Set(1, 7), IsOk());
    auto same = Array<int>::Open(name_, Access::kRead, options);
    ASSERT_THAT(same, IsOk());
    EXPECT_TRUE(IsForReading(same->fd()));
    EXPECT_THAT(same->Snapshot(), IsOkAndHolds(std::vector<int>{0, 7, 0}));
    EXPECT_FALSE(same->Lock().ok());
    EXPECT_THAT(Array<int>::Open(name_, Access::kReadWrite, options), IsOk());
    EXPECT_THAT(Segment::Unlink(name_), IsOk());
  }
}

TEST_F(NamedSegmentPeersTest, AnEventIsAwaitedForReading) {
  auto event = Event::Create(name_);
  ASSERT_THAT(event, IsOk());
  Child reader = Child::Fork([&](Child::Side side) {
    const auto same = Event::Open(name_, Access::kRead);
    if (!same.ok() || !IsForReading(same->fd())) return 1;
    side.Tell();
    return same->Wait(kPatience).ok() ? 0 : 2;
  });
  ASSERT_TRUE(reader.Hear());
  reader.AwaitSleep();
  EXPECT_THAT(event->Set(), IsOk());
  EXPECT_EQ(reader.Wait(), 0);
}

TEST_F(NamedSegmentPeersTest, ErrorsNameTheWayOut) {
  EXPECT_THAT(Segment::Open(name_),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr(name_), HasSubstr("create it first"))));
  { ASSERT_THAT(Segment::Create(name_, 64), IsOk()); }
  EXPECT_THAT(
      Segment::Create(name_, 64),
      StatusIs(absl::StatusCode::kAlreadyExists,
               AllOf(HasSubstr(name_), HasSubstr("take another name"))));
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  EXPECT_THAT(Segment::Open(name_),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       AllOf(HasSubstr(name_), HasSubstr("mode 0640"),
                             HasSubstr("chmod 0600"))));
  ASSERT_EQ(unlink(path_.c_str()), 0);
  ASSERT_EQ(mkdir(path_.c_str(), 0700), 0);
  for (const Access access : {Access::kRead, Access::kReadWrite}) {
    EXPECT_THAT(Segment::Open(name_, access),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(name_), HasSubstr("is a directory"))));
  }
  ASSERT_EQ(rmdir(path_.c_str()), 0);
  std::ofstream(path_) << "something else";
  ASSERT_EQ(chmod(path_.c_str(), 0600), 0);
  EXPECT_THAT(Segment::Open(name_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name_)));
}

// Somebody else's file, which he has locked in this process.
TEST_F(NamedSegmentPeersTest, LocksOfOthersStay) {
  const UniqueFd fd(open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_TRUE(fd.ok());
  ASSERT_EQ(ftruncate(fd.get(), 1 << 16), 0);
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  ASSERT_EQ(fcntl(fd.get(), F_SETLK, &lock), 0);
  ASSERT_THAT(Segment::List(), IsOk());
  ASSERT_THAT(Segment::RemoveStale(), IsOk());
  Child child = Child::Fork([&](Child::Side) {
    struct flock theirs = lock;
    if (fcntl(fd.get(), F_GETLK, &theirs) != 0) return 2;
    return theirs.l_type == F_WRLCK && theirs.l_pid == getppid() ? 0 : 1;
  });
  EXPECT_EQ(child.Wait(), 0);
}

}  // namespace
}  // namespace ipc::shm
