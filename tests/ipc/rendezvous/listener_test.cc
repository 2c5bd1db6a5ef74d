#include "ipc/rendezvous/listener.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/wait_any.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/connect.h"
#include "ipc/rendezvous/handshake.h"
#include "tests/ipc/rendezvous/raw_client.h"
#include "tests/ipc/rendezvous/temp_directory.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/unique_name.h"

namespace ipc::rendezvous {
namespace {

using ::absl::StatusCode;
using ::ipc::pipe::Connection;
using ::ipc::testing::Child;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::Duration kLong = absl::Minutes(2);
constexpr absl::Duration kShort = absl::Milliseconds(30);

PeerPolicy Key(const std::string& key) {
  PeerPolicy policy;
  policy.auth_key = key;
  return policy;
}

ListenerOptions WithKey(const std::string& key) {
  return {.policy = Key(key), .handshake_timeout = kLong};
}

ConnectOptions ClientWithKey(const std::string& key) {
  return {.policy = Key(key), .timeout = kLong};
}

long OpenFds() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return std::distance(begin(all), end(all));
}

class ListenerTest : public ::testing::Test {
 protected:
  Address path() const { return Address::Unix(directory_.Path("s")); }

  // At path(), without a Listener.
  UniqueFd RawListen() const {
    const auto to = path().ToSocket();
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(bind(fd.get(), to->get(), to->size), 0);
    EXPECT_EQ(listen(fd.get(), 1), 0);
    return fd;
  }

  TempDirectory directory_;
};

// ---- What CPython's tests of Listener say, under their names.

class FamilyTest : public ListenerTest,
                   public ::testing::WithParamInterface<Address::Kind> {
 protected:
  Address any() const {
    switch (GetParam()) {
      case Address::Kind::kUnix:
        return path();
      case Address::Kind::kAbstract:
        return Address::Abstract("");
      case Address::Kind::kTcp:
        break;
    }
    return Address::Tcp("127.0.0.1", 0);
  }
};

INSTANTIATE_TEST_SUITE_P(Families, FamilyTest,
                         ::testing::Values(Address::Kind::kUnix,
                                           Address::Kind::kAbstract,
                                           Address::Kind::kTcp),
                         [](const auto& info) -> std::string {
                           switch (info.param) {
                             case Address::Kind::kUnix:
                               return "Unix";
                             case Address::Kind::kAbstract:
                               return "Abstract";
                             case Address::Kind::kTcp:
                               break;
                           }
                           return "Tcp";
                         });

TEST_P(FamilyTest, MultipleBind) {
  auto listener = Listener::Listen(any(), WithKey("k"));
  ASSERT_THAT(listener, IsOk());
  EXPECT_THAT(Listener::Listen(listener->address(), WithKey("k")),
              StatusIs(StatusCode::kAlreadyExists, HasSubstr("another")));
}

TEST_P(FamilyTest, Context) {
  Address address = any();
  {
    auto listener = Listener::Listen(any(), WithKey("k"));
    ASSERT_THAT(listener, IsOk());
    address = listener->address();
    EXPECT_GE(listener->poll_fd(), 0);
  }
  // It has gone with its scope.
  EXPECT_FALSE(Connect(address, ClientWithKey("k")).ok());
  EXPECT_THAT(Listener::Listen(address, WithKey("k")), IsOk());
}

// In no file, so with nothing to clean up.
TEST_F(ListenerTest, AbstractSocket) {
  const Address address =
      Address::Abstract(testing::UniqueName("listener_test"));
  auto listener = Listener::Listen(address);
  ASSERT_THAT(listener, IsOk());
  EXPECT_EQ(listener->address().ToString(), address.ToString());
  Child child = Child::Fork([&] {
    const auto connection = Connect(address);
    return connection.ok() ? 0 : 1;
  });
  EXPECT_THAT(listener->Accept(kLong), IsOk());
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(FamilyTest, ListenerClient) {
  auto listener = Listener::Listen(any(), WithKey("k"));
  ASSERT_THAT(listener, IsOk());
  Child child = Child::Fork([&] {
    auto connection = Connect(listener->address(), ClientWithKey("k"));
    return connection.ok() && connection->Send("hello").ok() ? 0 : 1;
  });
  auto accepted = listener->Accept(kLong);
  ASSERT_THAT(accepted, IsOk());
  EXPECT_THAT(accepted->Receive(kLong), IsOkAndHolds("hello"));
  EXPECT_EQ(child.Wait(), 0);
}

// The client sends, and is gone before anybody accepts.
TEST_P(FamilyTest, Issue14725) {
  ListenerOptions options;
  options.policy.any_user = GetParam() == Address::Kind::kTcp;
  auto listener = Listener::Listen(any(), options);
  ASSERT_THAT(listener, IsOk());
  Child child = Child::Fork([&] {
    auto connection = Connect(listener->address(), {.policy = options.policy});
    return connection.ok() && connection->Send("hello").ok() ? 0 : 1;
  });
  EXPECT_EQ(child.Wait(), 0);
  auto accepted = listener->Accept(kLong);
  ASSERT_THAT(accepted, IsOk());
  EXPECT_THAT(accepted->Receive(kLong), IsOkAndHolds("hello"));
  EXPECT_THAT(accepted->Receive(kLong),
              StatusIs(StatusCode::kOutOfRange, HasSubstr("")));
}

TEST_P(FamilyTest, Issue16955) {
  auto listener = Listener::Listen(any(), WithKey("k"));
  ASSERT_THAT(listener, IsOk());
  Child child = Child::Fork([&] {
    auto connection = Connect(listener->address(), ClientWithKey("k"));
    return connection.ok() && connection->Poll(kLong).ok() &&
                   connection->Receive(kLong).ok()
               ? 0
               : 1;
  });
  auto accepted = listener->Accept(kLong);
  ASSERT_THAT(accepted, IsOk());
  EXPECT_THAT(accepted->Poll(absl::ZeroDuration()), IsOkAndHolds(false));
  ASSERT_THAT(accepted->Send("hello"), IsOk());
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(FamilyTest, ManyClients) {
  auto listener = Listener::Listen(any(), WithKey("k"));
  ASSERT_THAT(listener, IsOk());
  constexpr int kProcesses = 4;
  constexpr int kEach = 25;
  std::vector<Child> children;
  for (int i = 0; i < kProcesses; ++i) {
    children.push_back(Child::Fork([&] {
      for (int k = 0; k < kEach; ++k) {
        auto connection = Connect(listener->address(), ClientWithKey("k"));
        if (!connection.ok() || !connection->Send("1").ok() ||
            !connection->Receive(kLong).ok()) {
          return 1;
        }
      }
      return 0;
    }));
  }
  for (int i = 0; i < kProcesses * kEach; ++i) {
    auto accepted = listener->Accept(kLong);
    ASSERT_THAT(accepted, IsOk());
    ASSERT_THAT(accepted->Receive(kLong), IsOkAndHolds("1"));
    ASSERT_THAT(accepted->Send("2"), IsOk());
  }
  for (Child& child : children) EXPECT_EQ(child.Wait(), 0);
}

TEST_P(FamilyTest, DeliverChallengeAuthFailure) {
  auto listener = Listener::Listen(any(), WithKey("one"));
  ASSERT_THAT(listener, IsOk());
  Child child = Child::Fork([&] {
    const auto connection = Connect(listener->address(), ClientWithKey("two"));
    return absl::IsUnauthenticated(connection.status()) ? 0 : 1;
  });
  const auto accepted = listener->Accept(kLong);
  EXPECT_THAT(accepted, StatusIs(StatusCode::kUnauthenticated,
                                 HasSubstr("does not have our auth_key")));
  EXPECT_TRUE(Listener::IsAboutAClient(accepted.status()));
  EXPECT_EQ(child.Wait(), 0);
}

// ---- Files.

TEST_F(ListenerTest, NothingIsLeftBehind) {
  const long before = OpenFds();
  {
    auto listener = Listener::Listen(path());
    ASSERT_THAT(listener, IsOk());
    EXPECT_THAT(directory_.Names(), ElementsAre("s", "s.lock"));
    struct stat stat;
    ASSERT_EQ(lstat(path().name().c_str(), &stat), 0);
    EXPECT_TRUE(S_ISSOCK(stat.st_mode));
    EXPECT_EQ(stat.st_mode & 0777, 0600u);
    ASSERT_EQ(lstat(directory_.Path("s.lock").c_str(), &stat), 0);
    EXPECT_EQ(stat.st_mode & 0777, 0600u);
  }
  EXPECT_THAT(directory_.Names(), IsEmpty());
  EXPECT_EQ(OpenFds(), before);
  EXPECT_THAT(Connect(path()), StatusIs(StatusCode::kNotFound, HasSubstr("")));
}

TEST_F(ListenerTest, TheNextOneTakesWhatAKilledOneHasLeft) {
  for (int i = 0; i < 3; ++i) {
    auto ready = Connection::CreatePair();
    Child child = Child::Fork([&] {
      auto listener = Listener::Listen(path());
      if (!listener.ok() || !ready->second.Send("up").ok()) return 1;
      return pause();
    });
    ASSERT_THAT(ready->first.Receive(kLong), IsOkAndHolds("up"));
    EXPECT_THAT(Listener::Listen(path()),
                StatusIs(StatusCode::kAlreadyExists,
                         HasSubstr("another process listens there")));
    kill(child.pid(), SIGKILL);
    EXPECT_EQ(child.Wait(), -SIGKILL);
    EXPECT_THAT(Connect(path()),
                StatusIs(StatusCode::kUnavailable, HasSubstr("")));
    EXPECT_THAT(directory_.Names(), ElementsAre("s", "s.lock"));
  }
  auto listener = Listener::Listen(path());
  ASSERT_THAT(listener, IsOk());
  EXPECT_THAT(Connect(listener->address()), IsOk());
}

// Somebody's who keeps no lock, such as Python: he may well be alive.
TEST_F(ListenerTest, ASocketOfAnotherProgramIsLeftAlone) {
  const auto to = path().ToSocket();
  const UniqueFd other(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(other.get(), to->get(), to->size), 0);
  ASSERT_EQ(listen(other.get(), 1), 0);
  EXPECT_THAT(Listener::Listen(path()),
              StatusIs(StatusCode::kAlreadyExists, HasSubstr("remove it")));
  EXPECT_THAT(directory_.Names(), ElementsAre("s"));
  EXPECT_THAT(Connect(path()), IsOk());
}

TEST_F(ListenerTest, WhatIsNoSocketIsLeftAlone) {
  const std::string file = path().name();
  const UniqueFd made(open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_THAT(Listener::Listen(path()),
              StatusIs(StatusCode::kAlreadyExists, HasSubstr("")));
  ASSERT_EQ(unlink(file.c_str()), 0);
  ASSERT_EQ(symlink("/nowhere", file.c_str()), 0);
  EXPECT_THAT(Listener::Listen(path()),
              StatusIs(StatusCode::kAlreadyExists, HasSubstr("")));
  EXPECT_THAT(directory_.Names(), ElementsAre("s"));
}

TEST_F(ListenerTest, ALockThatIsALinkIsRefused) {
  ASSERT_EQ(symlink("elsewhere", directory_.Path("s.lock").c_str()), 0);
  EXPECT_THAT(Listener::Listen(path()),
              StatusIs(StatusCode::kAlreadyExists, HasSubstr("symbolic link")));
  EXPECT_THAT(directory_.Names(), ElementsAre("s.lock"));
}

TEST_F(ListenerTest, ALockOfAnotherUserIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  const std::string lock = directory_.Path("s.lock");
  const UniqueFd made(open(lock.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  if (chown(lock.c_str(), 65534, 65534) != 0) {
    GTEST_SKIP() << "this sandbox does not let root give a file away";
  }
  EXPECT_THAT(Listener::Listen(path()),
              StatusIs(StatusCode::kPermissionDenied, HasSubstr("not a file")));
}

TEST_F(ListenerTest, PathsThatWillNotDo) {
  EXPECT_THAT(Listener::Listen(Address::Unix(std::string(104, 'x'))),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("103")));
  EXPECT_THAT(Listener::Listen(Address::Unix(directory_.Path("none/s"))),
              StatusIs(StatusCode::kNotFound, HasSubstr("none/s.lock")));
  EXPECT_THAT(Listener::Listen(Address::Tcp("8.8.8.8", 0), WithKey("k")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("tunnel")));
}

TEST_F(ListenerTest, AForkedChildRemovesNothing) {
  auto listener = Listener::Listen(path());
  ASSERT_THAT(listener, IsOk());
  Child child = Child::Fork([&] {
    const Listener inherited = *std::move(listener);
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_THAT(directory_.Names(), ElementsAre("s", "s.lock"));
  EXPECT_THAT(Connect(path()), IsOk());
}

// ---- Who is let in.

TEST_F(ListenerTest, AClientOfAnotherUserIsRefused) {
  ListenerOptions options;
  options.policy.allowed_uids = {geteuid() + 1};
  auto listener = Listener::Listen(path(), options);
  ASSERT_THAT(listener, IsOk());
  auto client = Connect(path());
  ASSERT_THAT(client, IsOk());
  const auto accepted = listener->Accept(kLong);
  EXPECT_THAT(accepted,
              StatusIs(StatusCode::kPermissionDenied,
                       HasSubstr(absl::StrCat("process ", getpid()))));
  EXPECT_TRUE(Listener::IsAboutAClient(accepted.status()));
  EXPECT_THAT(client->Receive(kLong),
              StatusIs(StatusCode::kOutOfRange, HasSubstr("")));
}

TEST_F(ListenerTest, AListenerOfAnotherUserIsRefused) {
  auto listener = Listener::Listen(path());
  ASSERT_THAT(listener, IsOk());
  ConnectOptions options;
  options.policy.allowed_uids = {geteuid() + 1, geteuid() + 2};
  EXPECT_THAT(Connect(path(), options),
              StatusIs(StatusCode::kPermissionDenied, HasSubstr("allowed")));
  options.policy.allowed_uids.push_back(geteuid());
  EXPECT_THAT(Connect(path(), options), IsOk());
  options.policy.allowed_uids = {geteuid() + 1};
  options.policy.any_user = true;
  EXPECT_THAT(Connect(path(), options), IsOk());
}

TEST_F(ListenerTest, TcpAsksForAKeyOrToSayThatAnybodyWillDo) {
  const Address any = Address::Tcp("127.0.0.1", 0);
  EXPECT_THAT(Listener::Listen(any),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("auth_key")));
  ListenerOptions options;
  options.policy.any_user = true;
  auto listener = Listener::Listen(any, options);
  ASSERT_THAT(listener, IsOk());
  EXPECT_NE(listener->address().port(), 0);
  EXPECT_THAT(Connect(listener->address()),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("auth_key")));
  EXPECT_THAT(Connect(listener->address(), {.policy = options.policy}), IsOk());
}

TEST_F(ListenerTest, AnAcceptedConnectionIsOfTheOptionsSize) {
  ListenerOptions options = WithKey("k");
  options.connection.max_message_bytes = 1000;
  auto listener = Listener::Listen(path(), options);
  std::optional<Connection> client;
  std::thread thread(
      [&] { client.emplace(*Connect(path(), ClientWithKey("k"))); });
  auto accepted = listener->Accept(kLong);
  thread.join();
  ASSERT_THAT(accepted, IsOk());
  EXPECT_THAT(accepted->Send(std::string(1000, 'x')), IsOk());
  EXPECT_THAT(accepted->Send(std::string(1001, 'x')),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("")));
  EXPECT_THAT(client->Receive(kLong), IsOkAndHolds(std::string(1000, 'x')));
  const auto peer = accepted->peer();
  ASSERT_THAT(peer, IsOk());
  EXPECT_EQ(peer->uid, geteuid());
}

// ---- Clients that do not behave.

TEST_F(ListenerTest, WhoDoesNothingKeepsNobodyElseWaiting) {
  auto listener = Listener::Listen(path(), WithKey("k"));
  ASSERT_THAT(listener, IsOk());
  std::vector<UniqueFd> idle;
  for (int i = 0; i < 20; ++i) idle.push_back(RawConnect(path()));
  // One byte of a frame and no more is no better.
  for (const UniqueFd& fd : idle) ASSERT_EQ(write(fd.get(), "\0", 1), 1);
  Child child = Child::Fork(
      [&] { return Connect(path(), ClientWithKey("k")).ok() ? 0 : 1; });
  EXPECT_THAT(listener->Accept(kLong), IsOk());
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(ListenerTest, WhoTakesTooLongIsDropped) {
  ListenerOptions options = WithKey("k");
  options.handshake_timeout = kShort;
  auto listener = Listener::Listen(path(), options);
  const UniqueFd idle = RawConnect(path());
  const absl::Time begin = absl::Now();
  const auto accepted = listener->Accept(kLong);
  EXPECT_THAT(accepted,
              StatusIs(StatusCode::kUnauthenticated, HasSubstr("within 30ms")));
  EXPECT_GE(absl::Now() - begin, kShort);
  char byte;
  // The challenge, and then the end.
  std::string bytes;
  while (read(idle.get(), &byte, 1) == 1) bytes.push_back(byte);
  EXPECT_THAT(bytes, HasSubstr("#CHALLENGE#"));
}

// Else WaitAny would never say that there is room again.
TEST_F(ListenerTest, ItsDescriptorTellsWhenSomebodyTookTooLong) {
  ListenerOptions options = WithKey("k");
  options.handshake_timeout = kShort;
  options.max_handshakes = 1;
  auto listener = Listener::Listen(path(), options);
  const UniqueFd idle = RawConnect(path());
  EXPECT_THAT(WaitAny({&*listener}, kLong), IsOkAndHolds(ElementsAre(0)));
  EXPECT_THAT(listener->Accept(absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  Child child = Child::Fork(
      [&] { return Connect(path(), ClientWithKey("k")).ok() ? 0 : 1; });
  // The only place is taken, so it is this one that is told of first.
  EXPECT_THAT(WaitAny({&*listener}, kLong), IsOkAndHolds(ElementsAre(0)));
  EXPECT_THAT(listener->Accept(kLong),
              StatusIs(StatusCode::kUnauthenticated, HasSubstr("within")));
  const auto accepted = listener->Accept(kLong);
  EXPECT_THAT(accepted, IsOk());
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(ListenerTest, WhoGoesAwayInTheHandshakeIsTold) {
  auto listener = Listener::Listen(path(), WithKey("k"));
  RawConnect(path()).Reset();
  EXPECT_THAT(listener->Accept(kLong),
              StatusIs(StatusCode::kUnauthenticated, HasSubstr("")));
}

TEST_F(ListenerTest, RubbishIsRefused) {
  auto listener = Listener::Listen(path(), WithKey("k"));
  for (const std::string& rubbish :
       {std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12),
        std::string("\x7f\xff\xff\xff", 4), std::string("\x80\0\0\0", 4),
        std::string("\0\0\0\x03xyz", 7), std::string("\0\0\1\1", 4),
        std::string("\0\0\0\0", 4)}) {
    const UniqueFd fd = RawConnect(path());
    ASSERT_EQ(write(fd.get(), rubbish.data(), rubbish.size()),
              static_cast<ssize_t>(rubbish.size()));
    EXPECT_THAT(listener->Accept(kLong),
                StatusIs(StatusCode::kUnauthenticated, HasSubstr("")));
  }
}

TEST_F(ListenerTest, NobodyComesInTime) {
  auto listener = Listener::Listen(path());
  EXPECT_THAT(listener->Accept(kShort),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("nobody")));
  EXPECT_THAT(listener->Accept(absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("nobody")));
  EXPECT_THAT(WaitAny({&*listener}, kShort), IsOkAndHolds(IsEmpty()));
  auto client = Connect(path());
  EXPECT_THAT(WaitAny({&*listener}, kLong), IsOkAndHolds(ElementsAre(0)));
  EXPECT_THAT(listener->Accept(absl::ZeroDuration()), IsOk());
}

TEST_F(ListenerTest, NoRoomForAnOpenFileKeepsTheClient) {
  auto listener = Listener::Listen(path());
  auto client = Connect(path());
  ASSERT_THAT(client->Send("early"), IsOk());
  rlimit old;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  const UniqueFd highest(dup(0));
  const rlimit none = {.rlim_cur = static_cast<rlim_t>(highest.get()) + 1,
                       .rlim_max = old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto failed = listener->Accept(kLong);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
  EXPECT_THAT(failed, StatusIs(StatusCode::kResourceExhausted, HasSubstr("")));
  EXPECT_FALSE(Listener::IsAboutAClient(failed.status()));
  auto accepted = listener->Accept(kLong);
  ASSERT_THAT(accepted, IsOk());
  EXPECT_THAT(accepted->Receive(kLong), IsOkAndHolds("early"));
}

// ---- Connect.

TEST_F(ListenerTest, AListenerThatDoesNotAcceptIsTooLate) {
  auto listener = Listener::Listen(path(), WithKey("k"));
  ConnectOptions options = ClientWithKey("k");
  options.timeout = kShort;
  EXPECT_THAT(Connect(path(), options),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("handshake")));
}

// The time is for all of it, however prompt each message seems.
TEST_F(ListenerTest, AListenerThatIsAlwaysJustInTimeIsTooLate) {
  constexpr absl::Duration kPause = absl::Milliseconds(150);
  const UniqueFd listening = RawListen();
  std::thread thread([&] {
    auto connection = Connection::FromFd(
        UniqueFd(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC)));
    ASSERT_THAT(connection, IsOk());
    Handshake handshake(Handshake::Role::kListener, "k", /*allow_md5=*/false);
    Handshake::Step step = handshake.Start();
    // Two pauses are longer than the client's time.
    while (!handshake.done()) {
      absl::SleepFor(kPause);
      for (const std::string& message : step.send) {
        if (!connection->Send(message).ok()) return;
      }
      const auto answer = connection->Receive(kLong);
      if (!answer.ok()) return;
      step = handshake.Take(*answer);
    }
  });
  ConnectOptions options = ClientWithKey("k");
  options.timeout = kPause + kPause / 2;
  EXPECT_THAT(Connect(path(), options),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("handshake")));
  thread.join();
}

// A listener that is killed is not one with another key.
TEST_F(ListenerTest, AListenerThatGoesAwayInTheHandshakeIsUnavailable) {
  const UniqueFd listening = RawListen();
  std::thread thread([&] {
    // It has come, and is gone.
    UniqueFd(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC)).Reset();
  });
  EXPECT_THAT(Connect(path(), ClientWithKey("k")),
              StatusIs(StatusCode::kUnavailable, HasSubstr("went away")));
  thread.join();
}

TEST_F(ListenerTest, AFullBacklogIsTooLate) {
  auto listener = Listener::Listen(path(), {.backlog = 0});
  std::vector<Connection> waiting;
  while (true) {
    auto client = Connect(path(), {.timeout = kShort});
    if (!client.ok()) {
      EXPECT_THAT(client,
                  StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("accept")));
      break;
    }
    waiting.push_back(*std::move(client));
    ASSERT_LT(waiting.size(), 100u);
  }
  // Those who wait are served.
  for (size_t i = 0; i < waiting.size(); ++i) {
    EXPECT_THAT(listener->Accept(kLong), IsOk());
  }
}

TEST_F(ListenerTest, NobodyListens) {
  EXPECT_THAT(Connect(path()), StatusIs(StatusCode::kNotFound, HasSubstr("")));
  EXPECT_THAT(Connect(Address::Abstract(testing::UniqueName("parley-nobody"))),
              StatusIs(StatusCode::kUnavailable, HasSubstr("parley-nobody")));
  ASSERT_EQ(symlink("/nowhere", path().name().c_str()), 0);
  EXPECT_THAT(Connect(path()), StatusIs(StatusCode::kNotFound, HasSubstr("")));
}

TEST_F(ListenerTest, AGrantedSocketIsTakenOver) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
  EXPECT_THAT(Listener::FromFd(UniqueFd(dup(fd.get()))),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("listens")));
  const auto to = path().ToSocket();
  ASSERT_EQ(bind(fd.get(), to->get(), to->size), 0);
  ASSERT_EQ(listen(fd.get(), 5), 0);
  {
    auto listener = Listener::FromFd(std::move(fd));
    ASSERT_THAT(listener, IsOk());
    EXPECT_EQ(listener->address(), path());
    auto client = Connect(path());
    EXPECT_THAT(listener->Accept(kLong), IsOk());
  }
  EXPECT_THAT(directory_.Names(), ElementsAre("s")) << "it is not its own";
}

// One accepts from it, but not a stream.
TEST_F(ListenerTest, ASocketOfPacketsIsRefused) {
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const auto to = path().ToSocket();
  ASSERT_EQ(bind(fd.get(), to->get(), to->size), 0);
  ASSERT_EQ(listen(fd.get(), 5), 0);
  EXPECT_THAT(Listener::FromFd(std::move(fd)),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("stream")));
}

TEST_F(ListenerTest, MovedFrom) {
  auto listener = Listener::Listen(path());
  ASSERT_THAT(listener, IsOk());
  Listener other = *std::move(listener);
  EXPECT_EQ(other.address(), path());
  EXPECT_EQ(listener->address(),  // NOLINT(bugprone-use-after-move): on purpose
            Address::Unix(""));
  EXPECT_EQ(listener->poll_fd(), -1);
  EXPECT_THAT(listener->Accept(),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("moved")));
}

}  // namespace
}  // namespace ipc::rendezvous
