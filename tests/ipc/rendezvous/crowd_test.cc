// A Listener that is wanted by more than it has places for, most of whom do
// nothing with theirs; and one that comes late to those who did.
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/wait_any.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/listener.h"
#include "tests/ipc/rendezvous/raw_client.h"
#include "tests/ipc/rendezvous/temp_directory.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::rendezvous {
namespace {

using ::absl::StatusCode;
using ::ipc::testing::Child;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Minutes(2);
constexpr absl::Duration kShort = absl::Milliseconds(30);

constexpr size_t kPlaces = 4;

ListenerOptions WithKey() {
  ListenerOptions options;
  options.policy.auth_key = "k";
  options.handshake_timeout = kLong;
  return options;
}

ListenerOptions Crowded() {
  ListenerOptions options = WithKey();
  options.max_handshakes = kPlaces;
  options.crowded_timeout = kShort;
  return options;
}

// Three times as many as there are places, each of which comes again when it
// was dropped, and meanwhile sends the bytes of a frame, one now and then. A
// child, which tells when all are there.
Child StartLoris(const Address& address, uid_t user = geteuid()) {
  return Child::Fork([address, user](Child::Side side) {
    if (user != geteuid() && seteuid(user) != 0) return 1;
    const std::string frame =
        absl::StrCat(std::string("\0\0\0\xc8", 4), std::string(200, 'x'));
    struct Idler {
      UniqueFd fd;
      size_t sent = 0;
    };
    std::vector<Idler> idlers(3 * kPlaces);
    for (Idler& idler : idlers) idler.fd = RawConnect(address);
    side.Tell();
    while (true) {
      std::vector<pollfd> polls;
      for (const Idler& idler : idlers) {
        polls.push_back(
            {.fd = idler.fd.get(), .events = POLLRDHUP, .revents = 0});
      }
      poll(polls.data(), polls.size(), /*timeout=*/5);
      for (size_t i = 0; i < idlers.size(); ++i) {
        Idler& idler = idlers[i];
        if (polls[i].revents != 0) {
          idler = {RawConnect(address)};
        } else if (idler.sent < frame.size() &&
                   send(idler.fd.get(), &frame[idler.sent], 1, MSG_NOSIGNAL) ==
                       1) {
          ++idler.sent;
        }
      }
    }
  });
}

// Accepts what comes, while `client` answers whenever it is asked, until it is
// in.
void ExpectThatItGetsIn(Listener& listener, RawClient& client) {
  while (true) {
    ASSERT_THAT(WaitAny({&listener, &client.connection()}, kLong), IsOk());
    client.Step();
    ASSERT_THAT(client.status(), IsOk());
    auto accepted = listener.Accept(absl::ZeroDuration());
    if (accepted.ok()) break;
    ASSERT_TRUE(Listener::IsAboutAClient(accepted.status()) ||
                absl::IsDeadlineExceeded(accepted.status()))
        << accepted.status();
  }
  EXPECT_TRUE(client.done());
}

class CrowdTest : public ::testing::TestWithParam<Address::Kind> {
 protected:
  Address any() const {
    return GetParam() == Address::Kind::kTcp
               ? Address::Tcp("127.0.0.1", 0)
               : Address::Unix(directory_.Path("s"));
  }

  TempDirectory directory_;
};

INSTANTIATE_TEST_SUITE_P(Families, CrowdTest,
                         ::testing::Values(Address::Kind::kUnix,
                                           Address::Kind::kTcp),
                         [](const auto& info) -> std::string {
                           return info.param == Address::Kind::kTcp ? "Tcp"
                                                                    : "Unix";
                         });

TEST_P(CrowdTest, ThoseWhoDoNothingKeepNobodyOut) {
  auto listener = Listener::Listen(any(), Crowded());
  ASSERT_THAT(listener, IsOk());
  const Child loris = StartLoris(listener->address());
  ASSERT_TRUE(loris.Hear());
  // Each behind all of them.
  for (int i = 0; i < 3; ++i) {
    RawClient client(listener->address(), "k");
    ExpectThatItGetsIn(*listener, client);
  }
}

// They come and do nothing, but nobody waits for their places.
TEST_P(CrowdTest, NobodyIsDroppedWhileThereIsRoom) {
  auto listener = Listener::Listen(any(), Crowded());
  ASSERT_THAT(listener, IsOk());
  std::vector<RawClient> clients;
  for (size_t i = 0; i < kPlaces; ++i) {
    clients.emplace_back(listener->address(), "k");
  }
  EXPECT_THAT(listener->Accept(3 * kShort),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("nobody")));
  // And one more does.
  clients.emplace_back(listener->address(), "k");
  EXPECT_THAT(listener->Accept(kLong),
              StatusIs(StatusCode::kUnauthenticated,
                       HasSubstr("within 30ms, and somebody else waits")));
  for (size_t i = 1; i < clients.size(); ++i) {
    ExpectThatItGetsIn(*listener, clients[i]);
  }
  EXPECT_FALSE(clients[0].Step() && clients[0].Step());
  EXPECT_FALSE(clients[0].done());
}

// Who has shown the key goes last, however old his last message.
TEST_P(CrowdTest, WhoHasShownTheKeyGoesLast) {
  auto listener = Listener::Listen(any(), Crowded());
  ASSERT_THAT(listener, IsOk());
  RawClient slow(listener->address(), "k");
  ASSERT_THAT(WaitAny({&*listener}, kLong), IsOk());
  ASSERT_THAT(listener->Accept(absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  ASSERT_THAT(slow.connection().Poll(kLong), IsOkAndHolds(true));
  ASSERT_TRUE(slow.Step());
  // The verdict.
  while (!*slow.connection().Poll(absl::ZeroDuration())) {
    ASSERT_THAT(listener->Accept(kShort),
                StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  }
  const Child loris = StartLoris(listener->address());
  ASSERT_TRUE(loris.Hear());
  // Each place but his one changes hands several times.
  for (size_t i = 0; i < 5 * kPlaces; ++i) {
    ASSERT_THAT(listener->Accept(kLong),
                StatusIs(StatusCode::kUnauthenticated, HasSubstr("")));
  }
  ExpectThatItGetsIn(*listener, slow);
}

// Who has many keeps nobody else from the few that he needs.
TEST(CrowdOfUsersTest, EachUserHasAShare) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  constexpr uid_t kOther = 65534;
  if (seteuid(kOther) != 0) GTEST_SKIP() << "this sandbox has one user";
  ASSERT_EQ(seteuid(0), 0);
  ListenerOptions options = Crowded();
  options.policy.any_user = true;
  // Which others reach without a folder.
  auto listener = Listener::Listen(Address::Abstract(""), options);
  ASSERT_THAT(listener, IsOk());
  RawClient slow(listener->address(), "k");
  EXPECT_THAT(listener->Accept(absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  const Child loris = StartLoris(listener->address(), kOther);
  ASSERT_TRUE(loris.Hear());
  for (size_t i = 0; i < 5 * kPlaces; ++i) {
    ASSERT_THAT(listener->Accept(kLong),
                StatusIs(StatusCode::kUnauthenticated,
                         HasSubstr(absl::StrCat("of user ", kOther))));
  }
  ExpectThatItGetsIn(*listener, slow);
}

// What is late is a client, not a listener that had other things to do than to
// read what had come in time.
TEST_P(CrowdTest, WhoHasAnsweredIsNotTooLate) {
  ListenerOptions options = WithKey();
  options.handshake_timeout = kShort;
  auto listener = Listener::Listen(any(), options);
  ASSERT_THAT(listener, IsOk());
  RawClient client(listener->address(), "k");
  ASSERT_THAT(WaitAny({&*listener}, kLong), IsOk());
  // The challenge, the verdict, the response.
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(listener->Accept(absl::ZeroDuration()),
                StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
    ASSERT_THAT(client.connection().Poll(kLong), IsOkAndHolds(true));
    client.Step();
    ASSERT_THAT(client.status(), IsOk());
    // By TCP, too, what was sent is there by then.
    absl::SleepFor(2 * kShort);
  }
  EXPECT_TRUE(client.done());
  EXPECT_THAT(listener->Accept(absl::ZeroDuration()), IsOk());
}

// Nor who answered when his time was up, but before anybody looked.
TEST_P(CrowdTest, WhoHasAnsweredBeforeWeLookIsNotTooLate) {
  // By TCP, it may be under way when we look.
  if (GetParam() == Address::Kind::kTcp) return;
  ListenerOptions options = WithKey();
  options.handshake_timeout = kShort;
  auto listener = Listener::Listen(any(), options);
  ASSERT_THAT(listener, IsOk());
  RawClient client(listener->address(), "k");
  ASSERT_THAT(WaitAny({&*listener}, kLong), IsOk());
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(listener->Accept(absl::ZeroDuration()),
                StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
    ASSERT_THAT(client.connection().Poll(kLong), IsOkAndHolds(true));
    // The timer's event is the first of the two.
    ASSERT_THAT(WaitAny({&*listener}, kLong), IsOk());
    client.Step();
    ASSERT_THAT(client.status(), IsOk());
  }
  EXPECT_TRUE(client.done());
  EXPECT_THAT(listener->Accept(absl::ZeroDuration()), IsOk());
}

}  // namespace
}  // namespace ipc::rendezvous
