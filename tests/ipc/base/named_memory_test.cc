#include "ipc/base/named_memory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "ipc/base/memory.h"
#include "ipc/base/unique_fd.h"
#include "tests/testing/unique_name.h"

namespace ipc {
namespace {

class NamedMemoryTest : public ::testing::Test {
 protected:
  ~NamedMemoryTest() override { unlink(path_.c_str()); }

  const std::string name_ = testing::UniqueName("parley_named_memory_test");
  const std::string path_ = absl::StrCat("/dev/shm/", name_);
};

TEST_F(NamedMemoryTest, HasNoNameBeforeItIsPublished) {
  absl::StatusOr<UniqueFd> fd = CreateUnnamedFile(4096);
  ASSERT_TRUE(fd.ok());
  EXPECT_EQ(OpenNamedMemory(name_).status().code(),
            absl::StatusCode::kNotFound);
  ASSERT_TRUE(PublishMemory(fd->get(), name_).ok());
  absl::StatusOr<UniqueFd> same = OpenNamedMemory(absl::StrCat("/", name_));
  ASSERT_TRUE(same.ok());
  struct stat a, b;
  ASSERT_EQ(fstat(fd->get(), &a), 0);
  ASSERT_EQ(fstat(same->get(), &b), 0);
  EXPECT_EQ(a.st_ino, b.st_ino);
  EXPECT_EQ(b.st_size, 4096);
  EXPECT_EQ(b.st_blocks, 4096 / 512) << "allocated";
  EXPECT_EQ(fcntl(same->get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(PublishMemory(fd->get(), name_).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(UnlinkNamedMemory(name_).ok());
  EXPECT_EQ(UnlinkNamedMemory(name_).code(), absl::StatusCode::kNotFound);
}

TEST_F(NamedMemoryTest, HasName) {
  const absl::StatusOr<UniqueFd> fd = CreateUnnamedFile(4096);
  ASSERT_TRUE(fd.ok());
  EXPECT_FALSE(HasName(fd->get()));
  ASSERT_TRUE(PublishMemory(fd->get(), name_).ok());
  EXPECT_TRUE(HasName(fd->get()));
  ASSERT_TRUE(UnlinkNamedMemory(name_).ok());
  EXPECT_FALSE(HasName(fd->get()));
}

TEST_F(NamedMemoryTest, AllocatesWhatIsSparse) {
  const UniqueFd fd(open(path_.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600));
  ASSERT_EQ(ftruncate(fd.get(), 12288), 0);
  struct stat stat;
  ASSERT_EQ(fstat(fd.get(), &stat), 0);
  ASSERT_EQ(stat.st_blocks, 0);
  ASSERT_TRUE(AllocateFile(fd.get(), 8192).ok());
  ASSERT_EQ(fstat(fd.get(), &stat), 0);
  EXPECT_EQ(stat.st_blocks, 8192 / 512);
  EXPECT_EQ(stat.st_size, 12288) << "no longer, no shorter";
  ASSERT_TRUE(AllocateFile(fd.get(), 20000).ok());
  ASSERT_EQ(fstat(fd.get(), &stat), 0);
  EXPECT_EQ(stat.st_size, 12288);
}

TEST_F(NamedMemoryTest, ListsWhatCanBeOpened) {
  const absl::StatusOr<UniqueFd> fd = CreateUnnamedFile(4096);
  ASSERT_TRUE(fd.ok());
  const auto is_listed = [&] {
    const auto names = ListNamedMemory();
    EXPECT_TRUE(names.ok()) << names.status();
    return names.ok() &&
           std::find(names->begin(), names->end(), name_) != names->end();
  };
  EXPECT_FALSE(is_listed());
  ASSERT_TRUE(PublishMemory(fd->get(), name_).ok());
  EXPECT_TRUE(is_listed());
  ASSERT_EQ(fchmod(fd->get(), 0640), 0);
  EXPECT_FALSE(is_listed()) << "others may read it";
}

TEST_F(NamedMemoryTest, BadNames) {
  for (const std::string& name :
       {std::string(), std::string("/"), std::string("a/b"), std::string("."),
        std::string(".."), std::string("/.."), std::string("a\0b", 3),
        std::string(255, 'x')}) {
    EXPECT_EQ(CheckMemoryName(name).code(), absl::StatusCode::kInvalidArgument)
        << name;
    EXPECT_EQ(OpenNamedMemory(name).status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(UnlinkNamedMemory(name).code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(CheckMemoryName(std::string(254, 'x')).ok());
}

TEST_F(NamedMemoryTest, SquattedNames) {
  ASSERT_EQ(symlink("/etc/passwd", path_.c_str()), 0);
  absl::Status status = OpenNamedMemory(name_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  ASSERT_EQ(unlink(path_.c_str()), 0);

  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(OpenNamedMemory(name_).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(unlink(path_.c_str()), 0);

  absl::StatusOr<UniqueFd> fd = CreateUnnamedFile(4096);
  ASSERT_TRUE(PublishMemory(fd->get(), name_).ok());
  ASSERT_EQ(fchmod(fd->get(), 0666), 0);
  EXPECT_EQ(OpenNamedMemory(name_).status().code(),
            absl::StatusCode::kPermissionDenied);
  ASSERT_EQ(fchmod(fd->get(), 0600), 0);
  EXPECT_TRUE(OpenNamedMemory(name_).ok());
}

TEST_F(NamedMemoryTest, ForeignOwner) {
  absl::StatusOr<UniqueFd> fd = CreateUnnamedFile(4096);
  ASSERT_TRUE(PublishMemory(fd->get(), name_).ok());
  if (fchown(fd->get(), 12345, static_cast<gid_t>(-1)) != 0) {
    GTEST_SKIP() << "needs to be root, of more than a namespace of one user";
  }
  EXPECT_EQ(OpenNamedMemory(name_).status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(NamedMemoryTest, MoreThanThereIs) {
  EXPECT_EQ(CreateUnnamedFile(size_t{1} << 50).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(NamedMemoryTest, RemovesWhatItMeansAndNothingElse) {
  const absl::StatusOr<UniqueFd> fd = CreateUnnamedFile(4096);
  ASSERT_TRUE(PublishMemory(fd->get(), name_).ok());
  const auto unlink_if = [&](const UniqueFd& fd) {
    const absl::StatusOr<bool> removed = UnlinkIfSame(name_, fd.get());
    EXPECT_TRUE(removed.ok()) << removed.status();
    return removed.ok() && *removed;
  };
  // Somebody unlinks it and gives another one its name.
  ASSERT_TRUE(UnlinkNamedMemory(name_).ok());
  EXPECT_FALSE(unlink_if(*fd));
  const absl::StatusOr<UniqueFd> other = CreateUnnamedFile(4096);
  ASSERT_TRUE(PublishMemory(other->get(), name_).ok());
  EXPECT_FALSE(unlink_if(*fd));
  EXPECT_TRUE(HasName(other->get()));
  EXPECT_TRUE(unlink_if(*other));
  EXPECT_FALSE(HasName(other->get())) << "under no name";
}

// The same while others do that all the time: what has been given the name in
// good order is never removed.
TEST_F(NamedMemoryTest, RemovesNothingElseInARace) {
  const absl::StatusOr<UniqueFd> stale = CreateUnnamedFile(4096);
  // By which it can be given its name again.
  const std::string kept = absl::StrCat(name_, ".kept");
  ASSERT_TRUE(PublishMemory(stale->get(), kept).ok());
  std::atomic<bool> stop = false;
  std::thread remover([&] {
    while (!stop) (void)UnlinkIfSame(name_, stale->get());
  });
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(PublishMemory(stale->get(), name_).ok());
    (void)UnlinkNamedMemory(name_);
    const absl::StatusOr<UniqueFd> live = CreateUnnamedFile(4096);
    ASSERT_TRUE(PublishMemory(live->get(), name_).ok());
    ASSERT_TRUE(HasName(live->get()));
    // It may be without its name for an instant.
    while (!UnlinkNamedMemory(name_).ok()) {
    }
  }
  stop = true;
  remover.join();
  EXPECT_TRUE(UnlinkNamedMemory(kept).ok());
}

TEST_F(NamedMemoryTest, IsOpenedForReading) {
  { ASSERT_TRUE(PublishMemory(CreateUnnamedFile(4096)->get(), name_).ok()); }
  const auto fd = OpenNamedMemory(name_, Mapping::Access::kRead);
  ASSERT_TRUE(fd.ok());
  EXPECT_EQ(fcntl(fd->get(), F_GETFL) & O_ACCMODE, O_RDONLY);
}

}  // namespace
}  // namespace ipc
