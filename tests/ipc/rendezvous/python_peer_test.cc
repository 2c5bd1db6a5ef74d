// A real Python process connects to a Listener, and listens for Connect, by
// multiprocessing.connection, as a user would do it.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/connect.h"
#include "ipc/rendezvous/listener.h"
#include "tests/ipc/rendezvous/temp_directory.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/unique_name.h"

namespace ipc::rendezvous {
namespace {

using ::absl::StatusCode;
using ::ipc::testing::Child;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Minutes(2);

std::string PythonName(const Address& address) {
  switch (address.kind()) {
    case Address::Kind::kUnix:
      return address.name();
    case Address::Kind::kAbstract:
      return absl::StrCat("@", address.name());
    case Address::Kind::kTcp:
      break;
  }
  return absl::StrCat(address.name(), ":", address.port());
}

// How the peer authenticates.
enum class Python {
  kSystems,  // as the system's does: by MD5 up to 3.11
  kModern,   // as from 3.12 on, by what python_peer.py has for older ones
  kReal312,  // by 3.12's own multiprocessing.connection, run by the system's
};

// Where tools/setup --ci has put the library of Python 3.12.
constexpr char kLibrary312[] =
    ".npm/pyodide/node_modules/pyodide/python_stdlib.zip";

struct Case {
  std::string name;
  Address::Kind kind;
  std::string key;  // empty: none
  Python python;
};

class PythonPeerTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (GetParam().python == Python::kReal312 &&
        access(kLibrary312, R_OK) != 0) {
      GTEST_SKIP() << kLibrary312 << " is not there: run tools/setup --ci";
    }
  }

  PeerPolicy Policy(const std::string& key) const {
    PeerPolicy policy;
    if (!key.empty()) policy.auth_key = key;
    // All that the system's Python knows may be MD5.
    policy.allow_md5 = GetParam().python == Python::kSystems;
    policy.any_user = GetParam().kind == Address::Kind::kTcp;
    return policy;
  }
  ListenerOptions ForListener(const std::string& key) const {
    return {.policy = Policy(key), .handshake_timeout = kLong};
  }
  ConnectOptions ForClient(const std::string& key) const {
    return {.policy = Policy(key), .timeout = kLong};
  }

  Address Unused() const {
    switch (GetParam().kind) {
      case Address::Kind::kUnix:
        return Address::Unix(directory_.Path("s"));
      case Address::Kind::kAbstract:
        return Address::Abstract(testing::UniqueName("parley-python-test"));
      case Address::Kind::kTcp:
        break;
    }
    return Address::Tcp("127.0.0.1", 0);
  }

  static const char* How() {
    switch (GetParam().python) {
      case Python::kSystems:
        break;
      case Python::kModern:
        return "modern";
      case Python::kReal312:
        return kLibrary312;
    }
    return nullptr;
  }
  // Starts python_peer.py, whose output is `out`.
  static Child Start(const std::string& role, const Address& address,
                     const std::string& key, int out = STDOUT_FILENO) {
    return Child::Fork([&] {
      dup2(out, STDOUT_FILENO);
      const std::string name = PythonName(address);
      execl("/usr/bin/python3", "python3", "-I",
            "tests/ipc/rendezvous/python_peer.py", role.c_str(), name.c_str(),
            key.c_str(), How(), nullptr);
      perror("execl /usr/bin/python3");
      return 127;
    });
  }
  // Starts a Python that listens, and waits until it does.
  static Child StartListener(const std::string& role, Address* address,
                             const std::string& key) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) abort();
    const UniqueFd reader(fds[0]);
    UniqueFd writer(fds[1]);
    Child child = Start(role, *address, key, writer.get());
    writer.Reset();
    std::string line;
    char byte;
    while (read(reader.get(), &byte, 1) == 1 && byte != '\n') line += byte;
    uint32_t port = 0;
    if (absl::SimpleAtoi(line, &port)) {
      *address = Address::Tcp("127.0.0.1", static_cast<uint16_t>(port));
    } else {
      EXPECT_EQ(line, "there");
    }
    return child;
  }

  TempDirectory directory_;
};

INSTANTIATE_TEST_SUITE_P(
    Cases, PythonPeerTest,
    ::testing::Values(
        Case{"Unix", Address::Kind::kUnix, "", Python::kSystems},
        Case{"UnixWithKey", Address::Kind::kUnix, "secret", Python::kSystems},
        Case{"UnixWithKeyModern", Address::Kind::kUnix, "secret",
             Python::kModern},
        Case{"UnixWithKey312", Address::Kind::kUnix, "secret",
             Python::kReal312},
        Case{"AbstractWithKey", Address::Kind::kAbstract, "secret",
             Python::kSystems},
        Case{"AbstractWithKey312", Address::Kind::kAbstract, "secret",
             Python::kReal312},
        Case{"Tcp", Address::Kind::kTcp, "", Python::kSystems},
        Case{"TcpWithKey", Address::Kind::kTcp, "secret", Python::kSystems},
        Case{"TcpWithKeyModern", Address::Kind::kTcp, "secret",
             Python::kModern},
        Case{"TcpWithKey312", Address::Kind::kTcp, "secret", Python::kReal312}),
    [](const auto& info) { return info.param.name; });

TEST_P(PythonPeerTest, PythonConnects) {
  const std::string& key = GetParam().key;
  auto listener = Listener::Listen(Unused(), ForListener(key));
  ASSERT_THAT(listener, IsOk());
  Child child = Start("client", listener->address(), key);
  auto connection = listener->Accept(kLong);
  ASSERT_THAT(connection, IsOk());
  EXPECT_THAT(connection->Receive(kLong), IsOkAndHolds("from Python"));
  EXPECT_THAT(connection->Send("from C++"), IsOk());
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(PythonPeerTest, PythonListens) {
  const std::string& key = GetParam().key;
  Address address = Unused();
  Child child = StartListener("listener", &address, key);
  auto connection = Connect(address, ForClient(key));
  ASSERT_THAT(connection, IsOk());
  EXPECT_THAT(connection->Receive(kLong), IsOkAndHolds("from Python"));
  EXPECT_THAT(connection->Send("from C++"), IsOk());
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(PythonPeerTest, AClientWithAnotherKeyIsRejected) {
  if (GetParam().key.empty()) return;
  auto listener = Listener::Listen(Unused(), ForListener("secret"));
  ASSERT_THAT(listener, IsOk());
  Child child = Start("rejected_client", listener->address(), "wrong");
  EXPECT_THAT(listener->Accept(kLong),
              StatusIs(StatusCode::kUnauthenticated, HasSubstr("auth_key")));
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(PythonPeerTest, AListenerWithAnotherKeyIsRejected) {
  if (GetParam().key.empty()) return;
  Address address = Unused();
  Child child = StartListener("rejecting_listener", &address, "wrong");
  EXPECT_THAT(Connect(address, ForClient("secret")),
              StatusIs(StatusCode::kUnauthenticated, HasSubstr("do not have")));
  EXPECT_EQ(child.Wait(), 0);
}

// Where MD5 is all that Python knows, and we do not take it, both are told.
TEST_P(PythonPeerTest, Md5IsRefusedUnlessAllowed) {
  if (GetParam().key.empty() || GetParam().python != Python::kSystems) return;
  if (system("/usr/bin/python3 -c 'import sys; "
             "sys.exit(sys.version_info >= (3, 12))'") != 0) {
    GTEST_SKIP() << "this Python knows better";
  }
  ListenerOptions options = ForListener("secret");
  options.policy.allow_md5 = false;
  auto listener = Listener::Listen(Unused(), options);
  ASSERT_THAT(listener, IsOk());
  Child client = Start("rejected_client", listener->address(), "secret");
  EXPECT_THAT(listener->Accept(kLong),
              StatusIs(StatusCode::kUnauthenticated, HasSubstr("allow_md5")));
  EXPECT_EQ(client.Wait(), 0);

  Address address = GetParam().kind == Address::Kind::kUnix
                        ? Address::Unix(directory_.Path("t"))
                        : Unused();
  Child other = StartListener("rejecting_listener", &address, "secret");
  ConnectOptions to_connect = ForClient("secret");
  to_connect.policy.allow_md5 = false;
  EXPECT_THAT(Connect(address, to_connect),
              StatusIs(StatusCode::kUnauthenticated, HasSubstr("allow_md5")));
  EXPECT_EQ(other.Wait(), 0);
}

}  // namespace
}  // namespace ipc::rendezvous
