#include "services/control/runtime_directory.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace parley::control {
namespace {

// TEST_TMPDIR can be too long for a socket.
class RuntimeDirectoryTest : public testing::Test {
 protected:
  RuntimeDirectoryTest() {
    char pattern[] = "/tmp/parleyXXXXXX";
    parent_ = mkdtemp(pattern);
    path_ = parent_ + "/run";
  }
  ~RuntimeDirectoryTest() override {
    unlink((path_ + "/s").c_str());
    unlink((path_ + "/l").c_str());
    rmdir(path_.c_str());
    rmdir(parent_.c_str());
  }
  static mode_t ModeOf(const std::string& path) {
    struct stat status = {};
    EXPECT_EQ(lstat(path.c_str(), &status), 0);
    return status.st_mode & 07777;
  }

  std::string parent_;
  std::string path_;
};

TEST_F(RuntimeDirectoryTest, IsPrivate) {
  EXPECT_TRUE(RuntimeDirectory::Open(path_).ok());
  EXPECT_EQ(ModeOf(path_), 0700);
  EXPECT_TRUE(RuntimeDirectory::Open(path_).ok());
  chmod(path_.c_str(), 0755);
  EXPECT_EQ(RuntimeDirectory::Open(path_).status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(RuntimeDirectoryTest, ALinkIsRefused) {
  ASSERT_EQ(symlink(parent_.c_str(), path_.c_str()), 0);
  EXPECT_EQ(RuntimeDirectory::Open(path_).status().code(),
            absl::StatusCode::kPermissionDenied);
  unlink(path_.c_str());
}

TEST_F(RuntimeDirectoryTest, APathTooLongForASocketIsRefused) {
  EXPECT_EQ(RuntimeDirectory::Open(absl::StrCat("/tmp/", std::string(90, 'x')))
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(RuntimeDirectoryTest, ALockIsHeldUntilItsLastDescriptorCloses) {
  ASSERT_TRUE(RuntimeDirectory::Open(path_).ok());
  absl::StatusOr<ipc::UniqueFd> lock = TakeLock(path_ + "/l");
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_TRUE(absl::IsUnavailable(TakeLock(path_ + "/l").status()));
  absl::StatusOr<ipc::UniqueFd> copy = lock->Duplicate();
  lock->Reset();
  EXPECT_TRUE(absl::IsUnavailable(TakeLock(path_ + "/l").status()));
  copy->Reset();
  EXPECT_TRUE(TakeLock(path_ + "/l").ok());
}

TEST_F(RuntimeDirectoryTest, ASocketIsPrivateAndReplacesAStaleOne) {
  ASSERT_TRUE(RuntimeDirectory::Open(path_).ok());
  EXPECT_TRUE(ListenAt(path_ + "/s").ok());
  EXPECT_TRUE(ListenAt(path_ + "/s").ok());
  EXPECT_EQ(ModeOf(path_ + "/s"), 0600);
}

}  // namespace
}  // namespace parley::control
