// Nothing is left of ten thousand processes: no descriptor, no zombie, no
// thread.
#include <dirent.h>
#include <errno.h>
#include <sys/wait.h>

#include <string>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "ipc/process/process.h"
#include "ipc/process/spawn.h"

namespace ipc::process {
namespace {

constexpr int kStarts = 3000;
constexpr int kSpawns = 7000;

int CountEntries(const std::string& directory) {
  int entries = 0;
  DIR* open = opendir(directory.c_str());
  while (readdir(open) != nullptr) ++entries;
  closedir(open);
  return entries;
}

class ManyTest : public testing::Test {
 protected:
  void TearDown() override {
    EXPECT_EQ(CountEntries("/proc/self/fd"), fds_);
    EXPECT_EQ(CountEntries("/proc/self/task"), threads_);
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a zombie, or a child";
    EXPECT_EQ(errno, ECHILD);
  }

 private:
  const int fds_ = CountEntries("/proc/self/fd");
  const int threads_ = CountEntries("/proc/self/task");
};

TEST_F(ManyTest, Starts) {
  for (int i = 0; i < kStarts; ++i) {
    absl::StatusOr<Process> child = Process::Start([&] { return i & 127; });
    ASSERT_TRUE(child.ok()) << child.status();
    ASSERT_EQ(child->Join()->exitcode(), i & 127);
  }
}

TEST_F(ManyTest, Spawns) {
  SpawnOptions options;
  options.argv = {"/bin/true"};
  for (int i = 0; i < kSpawns; ++i) {
    absl::StatusOr<Process> child = Spawn(options);
    ASSERT_TRUE(child.ok()) << child.status();
    ASSERT_EQ(child->Join()->exitcode(), 0);
  }
}

}  // namespace
}  // namespace ipc::process
