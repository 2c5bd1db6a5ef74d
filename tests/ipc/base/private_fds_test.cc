#include "ipc/base/private_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "tests/testing/child.h"

namespace ipc {
namespace {

using ::ipc::testing::Child;

int OpenNull() { return open("/dev/null", O_RDWR | O_CLOEXEC); }

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST(PrivateFdsTest, AChildHasNoneOfThem) {
  auto fds = PrivateFds::Create();
  ASSERT_TRUE(fds.ok()) << fds.status();
  const int owned = (*fds)->Open(OpenNull);
  const UniqueFd listed(OpenNull());
  {
    const std::lock_guard<std::mutex> guard(PrivateFds::fork_lock());
    (*fds)->List(listed.get());
  }
  Child child = Child::Fork([&] {
    if (!(*fds)->in_child() || IsOpen(owned) || IsOpen(listed.get())) return 1;
    // What is opened next has their numbers, and is not closed in their place.
    const int mine = OpenNull();
    if (mine != owned && mine != listed.get()) return 2;
    Child grandchild = Child::Fork([&] { return IsOpen(mine) ? 0 : 1; });
    if (grandchild.Wait() != 0) return 3;
    fds->reset();
    return IsOpen(mine) ? 0 : 4;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_FALSE((*fds)->in_child());
  EXPECT_TRUE(IsOpen(owned));
  EXPECT_TRUE(IsOpen(listed.get()));
  fds->reset();
  EXPECT_FALSE(IsOpen(owned));
  EXPECT_TRUE(IsOpen(listed.get()));
}

TEST(PrivateFdsTest, WhatIsNoLongerPrivateIsInherited) {
  auto fds = PrivateFds::Create();
  ASSERT_TRUE(fds.ok()) << fds.status();
  const int closed = (*fds)->Open(OpenNull);
  (*fds)->Close(closed);
  EXPECT_FALSE(IsOpen(closed));
  const UniqueFd fd(OpenNull());
  {
    const std::lock_guard<std::mutex> guard(PrivateFds::fork_lock());
    (*fds)->List(fd.get());
    (*fds)->Unlist(fd.get());
  }
  // Of several, one in the middle has gone.
  auto second = PrivateFds::Create();
  auto third = PrivateFds::Create();
  const int of_third = (*third)->Open(OpenNull);
  second->reset();
  Child child = Child::Fork(
      [&] { return IsOpen(fd.get()) && !IsOpen(of_third) ? 0 : 1; });
  EXPECT_EQ(child.Wait(), 0);
}

TEST(PrivateFdsTest, AFailureIsTheCallers) {
  auto fds = PrivateFds::Create();
  ASSERT_TRUE(fds.ok()) << fds.status();
  EXPECT_EQ((*fds)->Open([] { return open("/nowhere/at/all", O_RDONLY); }), -1);
  EXPECT_EQ(errno, ENOENT);
}

}  // namespace
}  // namespace ipc
