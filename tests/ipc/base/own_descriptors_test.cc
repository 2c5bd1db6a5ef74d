#include "ipc/base/own_descriptors.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"

namespace ipc {
namespace {

class OwnDescriptorsTest : public ::testing::Test {
 protected:
  OwnDescriptorsTest() : fd_(mkostemp(path_.data(), O_CLOEXEC)) {}
  ~OwnDescriptorsTest() override { unlink(path_.c_str()); }

  std::string path_ =
      absl::StrCat(::testing::TempDir(), "/own_descriptors_XXXXXX");
  UniqueFd fd_;
};

// Whether another process finds the file locked by this one.
bool IsLocked(int fd) {
  const pid_t pid = fork();
  if (pid == 0) {
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    _exit(fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK ? 1 : 0);
  }
  int status = -1;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return WEXITSTATUS(status) == 1;
}

TEST_F(OwnDescriptorsTest, RecordLocksStay) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  ASSERT_EQ(fcntl(fd_.get(), F_SETLK, &lock), 0);
  bool opened = false;
  ASSERT_TRUE(RunWithOwnDescriptors([&] {
                UniqueFd same(open(path_.c_str(), O_RDWR | O_CLOEXEC));
                opened = same.ok();
              }).ok());
  EXPECT_TRUE(opened);
  EXPECT_TRUE(IsLocked(fd_.get()));
  // What it is for: this would drop it.
  { const UniqueFd same(open(path_.c_str(), O_RDWR | O_CLOEXEC)); }
  EXPECT_FALSE(IsLocked(fd_.get()));
}

// What it would hold open, it would for longer than the caller can tell.
TEST_F(OwnDescriptorsTest, HasNoneOfTheProcess) {
  int there = -1;
  ASSERT_TRUE(RunWithOwnDescriptors([&] {
                EXPECT_LT(fcntl(fd_.get(), F_GETFD), 0) << "has ours";
                UniqueFd same(open(path_.c_str(), O_RDWR | O_CLOEXEC));
                there = same.get();
              }).ok());
  // The first number that is free there, which is in use here.
  EXPECT_EQ(there, STDERR_FILENO + 1);
  EXPECT_GE(fcntl(fd_.get(), F_GETFD), 0);
}

}  // namespace
}  // namespace ipc
