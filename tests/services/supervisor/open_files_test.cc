// The real supervisor when it has many clients, and few descriptors.
#include <sys/resource.h>
#include <sys/types.h>
#include <time.h>

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "services/supervisor/client.h"
#include "services/supervisor/supervisor.pb.h"
#include "tests/services/supervisor/running_supervisor.h"

namespace parley::supervisor {
namespace {

// That the process has used so far.
absl::Duration ProcessorTimeOf(pid_t pid) {
  clockid_t clock;
  timespec used = {};
  EXPECT_EQ(clock_getcpuclockid(pid, &clock), 0);
  EXPECT_EQ(clock_gettime(clock, &used), 0);
  return absl::DurationFromTimespec(used);
}

// accept(2) fails with EMFILE then, and the listening socket stays readable:
// the supervisor did nothing but try again.
TEST(OpenFilesTest, WithNoneLeftNewClientsWaitAndItRests) {
  constexpr rlim_t kFiles = 40;
  RunningSupervisor supervisor(kFiles, kFiles);
  std::vector<ipc::UniqueFd> crowd;
  for (rlim_t i = 0; i < kFiles; ++i) {
    crowd.push_back(supervisor.ConnectFd());
  }
  std::unique_ptr<Client> late = supervisor.Connect();
  v1::ClientMessage list;
  list.mutable_list();
  supervisor.List();

  const absl::Time begin = absl::Now();
  const absl::Duration used = ProcessorTimeOf(supervisor.pid());
  EXPECT_EQ(late->Call(list, absl::Milliseconds(500)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(ProcessorTimeOf(supervisor.pid()) - used,
            (absl::Now() - begin) / 10);

  supervisor.List();  // who is connected is served
  crowd.clear();
  const auto answer = late->Call(list, kPatience);
  EXPECT_TRUE(answer.ok()) << answer.status();
}

TEST(OpenFilesTest, ItTakesAllItMayAndProcessesGetWhatItWasGiven) {
  constexpr rlim_t kSoft = 64;
  constexpr rlim_t kHard = 512;
  RunningSupervisor supervisor(kSoft, kHard);
  rlimit own = {};
  ASSERT_EQ(prlimit(supervisor.pid(), RLIMIT_NOFILE, nullptr, &own), 0);
  EXPECT_EQ(own.rlim_cur, kHard);

  const v1::ProcessSpec plain =
      Process("plain", "/bin/sh", {"-c", "ulimit -Sn; ulimit -Hn"});
  v1::ProcessSpec limited = plain;
  limited.set_name("limited");
  limited.mutable_limits()->set_files(100);
  v1::SessionSpec session = Session("s");
  *session.add_processes() = plain;
  *session.add_processes() = limited;
  ASSERT_TRUE(supervisor.Up(session).ok());
  supervisor.AwaitOutput("s", "plain", absl::StrCat(kSoft, "\n", kHard, "\n"));
  supervisor.AwaitOutput("s", "limited", "100\n100\n");
}

}  // namespace
}  // namespace parley::supervisor
