// The file of a listening socket: what mode it has, and whose it is.
#include "ipc/rendezvous/socket_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/connect.h"
#include "ipc/rendezvous/listener.h"
#include "tests/ipc/rendezvous/temp_directory.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::rendezvous {
namespace {

using ::absl::StatusCode;
using ::ipc::testing::Child;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class SocketFileTest : public ::testing::Test {
 protected:
  Address address() const { return Address::Unix(path()); }
  std::string path() const { return directory_.Path("s"); }

  struct stat Stat() const {
    struct stat stat = {};
    EXPECT_EQ(lstat(path().c_str(), &stat), 0);
    return stat;
  }

  // What a listener that is killed leaves.
  void LeaveASocket() const {
    Child child = Child::Fork([&](Child::Side side) {
      auto listener = Listener::Listen(address());
      if (!listener.ok()) return 1;
      side.Tell();
      return pause();
    });
    ASSERT_TRUE(child.Hear());
    child.Kill();
    EXPECT_EQ(child.Wait(), -SIGKILL);
    EXPECT_THAT(directory_.Names(), ElementsAre("s", "s.lock"));
  }

  TempDirectory directory_;
};

class SocketFileModeTest : public SocketFileTest,
                           public ::testing::WithParamInterface<mode_t> {};

INSTANTIATE_TEST_SUITE_P(Umasks, SocketFileModeTest,
                         ::testing::Values(0, 022, 077, 0777));

TEST_P(SocketFileModeTest, TheModeIsAsAskedFor) {
  const mode_t old = umask(GetParam());
  for (const mode_t mode : {0600, 0660, 0666, 0200}) {
    const auto listener = Listener::Listen(address(), {.mode = mode});
    EXPECT_THAT(listener, IsOk());
    EXPECT_EQ(Stat().st_mode & 07777, mode);
  }
  umask(old);
}

// The admin removed what a killed one had left, and a program that keeps no
// lock listens there now, on a socket whose inode has the number of the one
// before: file systems give it out again at once.
TEST_F(SocketFileTest, AnotherSocketOfTheSameInodeIsLeftAlone) {
  LeaveASocket();
  const struct stat before = Stat();
  ASSERT_EQ(unlink(path().c_str()), 0);
  const auto to = address().ToSocket();
  std::optional<UniqueFd> other;
  // Of another time; clocks of file systems are coarse.
  do {
    unlink(path().c_str());
    other.emplace(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(bind(other->get(), to->get(), to->size), 0);
  } while (Stat().st_mtim.tv_sec == before.st_mtim.tv_sec &&
           Stat().st_mtim.tv_nsec == before.st_mtim.tv_nsec);
  ASSERT_EQ(listen(other->get(), 1), 0);
  // Where the number is another one, say that it had been this one.
  std::stringstream record;
  record << std::ifstream(directory_.Path("s.lock")).rdbuf();
  uint64_t device, inode;
  std::string rest;
  record >> device >> inode;
  std::getline(record, rest);
  EXPECT_EQ(inode, before.st_ino);
  std::ofstream(directory_.Path("s.lock"))
      << device << " " << Stat().st_ino << rest << "\n";

  EXPECT_THAT(Listener::Listen(address()),
              StatusIs(StatusCode::kAlreadyExists, HasSubstr("remove it")));
  EXPECT_THAT(Connect(address()), IsOk());
}

// The same of one that still lives, when it ends.
TEST_F(SocketFileTest, AnotherSocketOfTheSameInodeIsNotRemoved) {
  {
    auto listener = Listener::Listen(address());
    ASSERT_THAT(listener, IsOk());
    // As one that was made at another time.
    const timespec times[] = {{.tv_sec = 1, .tv_nsec = 0},
                              {.tv_sec = 1, .tv_nsec = 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path().c_str(), times, AT_SYMLINK_NOFOLLOW),
              0);
  }
  EXPECT_THAT(directory_.Names(), ElementsAre("s"));
}

// What is stale may have been used, renamed, and its mode changed.
TEST_F(SocketFileTest, AStaleSocketIsKnownAgain) {
  LeaveASocket();
  ASSERT_EQ(chmod(path().c_str(), 0666), 0);
  const std::string elsewhere = directory_.Path("elsewhere");
  ASSERT_EQ(rename(path().c_str(), elsewhere.c_str()), 0);
  ASSERT_EQ(rename(elsewhere.c_str(), path().c_str()), 0);
  EXPECT_THAT(Connect(address()),
              StatusIs(StatusCode::kUnavailable, HasSubstr("")));
  EXPECT_THAT(Listener::Listen(address()), IsOk());
  EXPECT_THAT(directory_.Names(), IsEmpty());
}

// Has the system call fail from now on, in this thread and for good.
void Forbid(int call, int error) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1),
      BPF_STMT(BPF_RET | BPF_K,
               SECCOMP_RET_ERRNO | static_cast<uint32_t>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {.len = std::size(filter), .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    _exit(100);
  }
}

// Not every file system has RENAME_NOREPLACE.
TEST_F(SocketFileTest, WithoutRenameNoReplace) {
  for (const int error : {EINVAL, ENOSYS}) {
    Child child = Child::Fork([&] {
      Forbid(SYS_renameat2, error);
      {
        auto listener = Listener::Listen(address());
        if (!listener.ok()) return 1;
        if (!Connect(address()).ok()) return 2;
        if (directory_.Names().size() != 2) return 3;
        if (!absl::IsAlreadyExists(Listener::Listen(address()).status())) {
          return 4;
        }
      }
      if (!directory_.Names().empty()) return 5;
      // And what is there is not replaced.
      const UniqueFd file(
          open(path().c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
      if (!absl::IsAlreadyExists(Listener::Listen(address()).status())) {
        return 6;
      }
      unlink(path().c_str());
      return 0;
    });
    EXPECT_EQ(child.Wait(), 0);
  }
}

}  // namespace
}  // namespace ipc::rendezvous
