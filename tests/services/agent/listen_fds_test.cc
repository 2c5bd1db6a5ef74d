#include "services/agent/listen_fds.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::agent {
namespace {

void SetVariables(const std::string& pid, const std::string& count,
                  const std::string& names) {
  setenv("LISTEN_PID", pid.c_str(), 1);
  setenv("LISTEN_FDS", count.c_str(), 1);
  setenv("LISTEN_FDNAMES", names.c_str(), 1);
}

// In a child, whose descriptors from 3 on are the test's to arrange.
template <typename Body>
void InChild(Body body) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    close_range(3, ~0U, 0);
    body();
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(ListenFdsTest, TakesThemByName) {
  InChild([] {
    ASSERT_EQ(open("/dev/null", O_RDONLY), 3);
    ASSERT_EQ(open("/dev/zero", O_RDONLY), 4);
    SetVariables(absl::StrCat(getpid()), "2", "a:b");
    absl::StatusOr<std::vector<NamedFd>> fds = TakeListenFds();
    ASSERT_TRUE(fds.ok()) << fds.status();
    ASSERT_EQ(fds->size(), 2u);
    EXPECT_EQ((*fds)[0].name, "a");
    EXPECT_EQ((*fds)[0].fd.get(), 3);
    EXPECT_EQ((*fds)[1].name, "b");
    EXPECT_EQ((*fds)[1].fd.get(), 4);
    EXPECT_EQ(fcntl(3, F_GETFD), FD_CLOEXEC);
    EXPECT_EQ(getenv("LISTEN_FDS"), nullptr);
    EXPECT_EQ(getenv("LISTEN_FDNAMES"), nullptr);
    EXPECT_EQ(getenv("LISTEN_PID"), nullptr);
  });
}

TEST(ListenFdsTest, NoneIfMeantForAnotherProcess) {
  InChild([] {
    SetVariables(absl::StrCat(getppid()), "1", "a");
    absl::StatusOr<std::vector<NamedFd>> fds = TakeListenFds();
    ASSERT_TRUE(fds.ok()) << fds.status();
    EXPECT_TRUE(fds->empty());
  });
}

TEST(ListenFdsTest, ContradictionsAreRefused) {
  InChild([] {
    const std::string pid = absl::StrCat(getpid());
    SetVariables(pid, "1", "not-open");
    EXPECT_THAT(TakeListenFds().status().message(),
                testing::HasSubstr("\"not-open\", fd 3"));
    SetVariables(pid, "2", "only-one");
    EXPECT_THAT(TakeListenFds().status().message(),
                testing::HasSubstr("names 1 descriptors, but LISTEN_FDS is 2"));
    for (const char* count : {"-1", "x", "99999999"}) {
      SetVariables(pid, count, "a");
      EXPECT_EQ(TakeListenFds().status().code(),
                absl::StatusCode::kInvalidArgument)
          << count;
    }
  });
}

}  // namespace
}  // namespace parley::agent
