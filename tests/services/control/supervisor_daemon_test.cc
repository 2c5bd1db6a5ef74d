// The supervisor that `parley serve` starts.
#include "services/control/supervisor_daemon.h"

#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/process/children.h"
#include "services/control/runtime_directory.h"
#include "services/supervisor/client.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::control {
namespace {

// `parley serve` as a service of systemd: the supervisor said READY=1 on the
// socket that was for the server, before that served.
TEST(SupervisorDaemonTest, IsNotToldWhatTheServerWas) {
  setenv("LISTEN_FDS", "7", 1);
  setenv("LISTEN_FDNAMES", "a:b:c:d:e:f:g", 1);
  setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
  setenv("NOTIFY_SOCKET", "@nobody", 1);
  // TEST_TMPDIR can be too long for a socket.
  char parent[] = "/tmp/parleyXXXXXX";
  ASSERT_NE(mkdtemp(parent), nullptr);
  const std::string path = absl::StrCat(parent, "/run");
  const auto directory = RuntimeDirectory::Open(path);
  ASSERT_TRUE(directory.ok()) << directory.status();
  const std::string binary =
      absl::StrCat(getenv("TEST_SRCDIR"), "/", getenv("TEST_WORKSPACE"),
                   "/services/supervisor/supervisor");
  const absl::Status started = EnsureSupervisor(binary, *directory);
  ASSERT_TRUE(started.ok()) << started;

  // Its environment can be read once it runs, a moment after it is executed.
  absl::StatusOr<supervisor::Client> client =
      supervisor::Client::Connect(directory->supervisor_socket());
  ASSERT_TRUE(client.ok()) << client.status();
  supervisor::v1::ClientMessage list;
  list.mutable_list();
  EXPECT_TRUE(client->Call(std::move(list)).ok());

  const std::vector<pid_t> children = ipc::process::ListChildren();
  ASSERT_EQ(children.size(), 1u);
  std::ifstream file(absl::StrCat("/proc/", children[0], "/environ"));
  const std::string environment{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::string> told;
  for (const absl::string_view variable : absl::StrSplit(environment, '\0')) {
    if (absl::StartsWith(variable, "LISTEN_") ||
        absl::StartsWith(variable, "NOTIFY_")) {
      told.emplace_back(variable);
    }
  }
  EXPECT_THAT(told, testing::UnorderedElementsAre(
                        "LISTEN_FDS=2", "LISTEN_FDNAMES=listen:lock",
                        absl::StrCat("LISTEN_PID=", children[0])));

  const absl::Status shut_down = ShutDownSupervisor(*directory);
  EXPECT_TRUE(shut_down.ok()) << shut_down;
  ipc::process::KillAllChildren();
  unlink(directory->supervisor_lock().c_str());
  unlink(directory->supervisor_log().c_str());
  EXPECT_EQ(rmdir(path.c_str()), 0);
  EXPECT_EQ(rmdir(parent), 0);
}

}  // namespace
}  // namespace parley::control
