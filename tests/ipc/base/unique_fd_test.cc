#include "ipc/base/unique_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"

namespace ipc {
namespace {

int OpenNull() { return open("/dev/null", O_RDWR | O_CLOEXEC); }

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST(UniqueFdTest, OwnsNothingByDefault) {
  UniqueFd fd;
  EXPECT_FALSE(fd.ok());
  EXPECT_EQ(fd.get(), -1);
}

TEST(UniqueFdTest, ClosesWhenDestroyed) {
  const int raw = OpenNull();
  {
    UniqueFd fd(raw);
    EXPECT_TRUE(fd.ok());
    EXPECT_EQ(fd.get(), raw);
    EXPECT_TRUE(IsOpen(raw));
  }
  EXPECT_FALSE(IsOpen(raw));
}

TEST(UniqueFdTest, OwnsDescriptorZero) {
  const int saved = fcntl(0, F_DUPFD_CLOEXEC, 0);
  close(0);
  {
    UniqueFd fd(OpenNull());
    ASSERT_EQ(fd.get(), 0);
    EXPECT_TRUE(fd.ok());
  }
  EXPECT_FALSE(IsOpen(0));
  if (saved >= 0) {
    dup2(saved, 0);
    close(saved);
  }
}

TEST(UniqueFdTest, MoveHandsOver) {
  const int raw = OpenNull();
  UniqueFd a(raw);
  UniqueFd b(std::move(a));
  EXPECT_FALSE(a.ok());  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(b.get(), raw);
}

TEST(UniqueFdTest, MoveAssignmentClosesWhatWasOwned) {
  const int first = OpenNull();
  const int second = OpenNull();
  UniqueFd a(first);
  UniqueFd b(second);
  a = std::move(b);
  EXPECT_FALSE(IsOpen(first));
  EXPECT_EQ(a.get(), second);
  EXPECT_FALSE(b.ok());  // NOLINT(bugprone-use-after-move)
}

TEST(UniqueFdTest, MoveToItselfKeepsTheDescriptor) {
  const int raw = OpenNull();
  UniqueFd a(raw);
  UniqueFd& same = a;
  a = std::move(same);
  EXPECT_EQ(a.get(), raw);
  EXPECT_TRUE(IsOpen(raw));
}

TEST(UniqueFdTest, ReleaseGivesUpOwnership) {
  UniqueFd fd(OpenNull());
  const int raw = fd.Release();
  EXPECT_FALSE(fd.ok());
  EXPECT_TRUE(IsOpen(raw));
  close(raw);
}

TEST(UniqueFdTest, ResetLeavesErrnoAsItWas) {
  UniqueFd fd(1'000'000);  // not open: close fails with EBADF
  errno = EXDEV;
  fd.Reset();
  EXPECT_EQ(errno, EXDEV);
}

TEST(UniqueFdTest, DuplicateIsCloseOnExecAndIndependent) {
  UniqueFd fd(OpenNull());
  absl::StatusOr<UniqueFd> copy = fd.Duplicate();
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_NE(copy->get(), fd.get());
  EXPECT_EQ(fcntl(copy->get(), F_GETFD), FD_CLOEXEC);
  fd.Reset();
  EXPECT_TRUE(IsOpen(copy->get()));
}

TEST(UniqueFdTest, DuplicateOfNothingIsAnError) {
  EXPECT_FALSE(UniqueFd().Duplicate().ok());
}

}  // namespace
}  // namespace ipc
