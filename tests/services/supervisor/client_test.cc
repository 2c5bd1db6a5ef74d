// A client that launches a supervisor of its own.
#include "services/supervisor/client.h"

#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/supervisor/supervisor.pb.h"
#include "tests/services/supervisor/running_supervisor.h"

namespace parley::supervisor {
namespace {

// `parley run` under systemd, say: the supervisor took the descriptors that its
// client was granted for its own, did not find its connection, and told systemd
// that it was READY in the name of its client.
TEST(ClientTest, ALaunchedSupervisorIsNotToldWhatItsClientWas) {
  setenv("LISTEN_FDS", "7", 1);
  setenv("LISTEN_FDNAMES", "a:b:c:d:e:f:g", 1);
  setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
  setenv("NOTIFY_SOCKET", "@nobody", 1);
  absl::StatusOr<Client> client =
      Client::Launch({.binary = Runfile("services/supervisor/supervisor")});
  ASSERT_TRUE(client.ok()) << client.status();
  v1::ClientMessage list;
  list.mutable_list();
  const auto response = client->Call(std::move(list), kPatience);
  EXPECT_TRUE(response.ok()) << response.status();

  std::ifstream file(
      absl::StrCat("/proc/", client->supervisor_pid(), "/environ"));
  const std::string environment{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::string> told;
  for (const absl::string_view variable : absl::StrSplit(environment, '\0')) {
    if (absl::StartsWith(variable, "LISTEN_") ||
        absl::StartsWith(variable, "NOTIFY_")) {
      told.emplace_back(variable);
    }
  }
  EXPECT_THAT(told, testing::UnorderedElementsAre(
                        "LISTEN_FDS=1", "LISTEN_FDNAMES=control",
                        absl::StrCat("LISTEN_PID=", client->supervisor_pid())));
}

}  // namespace
}  // namespace parley::supervisor
