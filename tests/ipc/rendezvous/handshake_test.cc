#include "ipc/rendezvous/handshake.h"

#include <deque>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace ipc::rendezvous {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Role = Handshake::Role;

constexpr absl::string_view kChallenge = "#CHALLENGE#";

// Lets both talk until neither has anything to say; what each found in the end.
std::pair<absl::Status, absl::Status> Shake(Handshake& listener,
                                            Handshake& client) {
  struct Side {
    Handshake& handshake;
    std::deque<std::string> inbox = {};
    absl::Status status = absl::OkStatus();
  };
  Side sides[2] = {{listener}, {client}};
  const auto perform = [&](int i, const Handshake::Step& step) {
    for (const std::string& message : step.send) {
      EXPECT_LE(message.size(), Handshake::kMaxMessageBytes);
      sides[1 - i].inbox.push_back(message);
    }
    sides[i].status = step.status;
  };
  perform(0, listener.Start());
  perform(1, client.Start());
  for (bool moved = true; moved;) {
    moved = false;
    for (int i : {0, 1}) {
      Side& side = sides[i];
      if (side.inbox.empty() || !side.status.ok() || side.handshake.done()) {
        continue;
      }
      const std::string message = side.inbox.front();
      side.inbox.pop_front();
      perform(i, side.handshake.Take(message));
      moved = true;
    }
  }
  return {sides[0].status, sides[1].status};
}

TEST(HandshakeTest, TwoWithTheSameKeyAcceptEachOther) {
  for (const std::string& key :
       {std::string("key"), std::string(), std::string("\0\xff", 2),
        std::string(1000, 'k')}) {
    Handshake listener(Role::kListener, key, false);
    Handshake client(Role::kClient, key, false);
    const auto [at_listener, at_client] = Shake(listener, client);
    EXPECT_THAT(at_listener, IsOk());
    EXPECT_THAT(at_client, IsOk());
    EXPECT_TRUE(listener.done());
    EXPECT_TRUE(client.done());
  }
}

TEST(HandshakeTest, BothAreToldThatTheirKeysDiffer) {
  Handshake listener(Role::kListener, "key", false);
  Handshake client(Role::kClient, "kez", false);
  const auto [at_listener, at_client] = Shake(listener, client);
  EXPECT_THAT(at_listener, StatusIs(StatusCode::kUnauthenticated,
                                    HasSubstr("does not have our auth_key")));
  EXPECT_THAT(at_client, StatusIs(StatusCode::kUnauthenticated,
                                  HasSubstr("we do not have its auth_key")));
  EXPECT_FALSE(listener.done());
  EXPECT_FALSE(client.done());
}

TEST(HandshakeTest, NoChallengeComesTwice) {
  Handshake one(Role::kListener, "key", false);
  Handshake other(Role::kListener, "key", false);
  EXPECT_NE(one.Start().send, other.Start().send);
}

// HMACs by Python's hmac module, with the key "secret".
constexpr char kSha256[] =
    "57221c32cd0aa3e90893e11ffda2be7449c1517591a532039a0a1ee16b4b0f5b";
constexpr char kSha384[] =
    "1e7d029fae01a1d7c762edcde3d115fc55f5ffefab39e22c54b8754d0b67f6e4"
    "361b3aade018c289eed24e090a1aefb5";
constexpr char kSha3With256[] =
    "fd13611a8ee8adde453fd47fb750858b8ca41bc5ab614948ef82c84030ee7dfc";
constexpr char kSha3With384[] =
    "5c5ad33f873e0f7606e9b812a96d3cd02d10b651bf56a783524f5fd9a79ce177"
    "2f1a446e2296ec3210833e5e96189631";
constexpr char kMd5[] = "9396d628fdf9cae2bf8b88cf6f1bbcd5";
constexpr char kOldMd5[] = "8302bf62c30b1e02e332cf9a84807812";

TEST(HandshakeTest, AnswersAsPythonDoes) {
  const std::string nonce = "0123456789012345678901234567890123456789";
  const struct {
    std::string name;
    std::string hmac;
  } cases[] = {
      {"sha256", kSha256},
      {"sha384", kSha384},
      {"sha3_256", kSha3With256},
      {"sha3_384", kSha3With384},
      {"md5", kMd5},
  };
  for (const auto& [name, hmac] : cases) {
    Handshake client(Role::kClient, "secret", /*allow_md5=*/true);
    client.Start();
    const Handshake::Step step =
        client.Take(absl::StrCat(kChallenge, "{", name, "}", nonce));
    EXPECT_THAT(step.status, IsOk()) << name;
    EXPECT_THAT(step.send, ElementsAre(absl::StrCat(
                               "{", name, "}", absl::HexStringToBytes(hmac))));
  }
  // The old way: twenty bytes, and the bare MAC.
  Handshake client(Role::kClient, "secret", /*allow_md5=*/true);
  client.Start();
  EXPECT_THAT(
      client.Take(absl::StrCat(kChallenge, "{sha256}901234567890")).send,
      ElementsAre(absl::HexStringToBytes(kOldMd5)));
}

TEST(HandshakeTest, Md5IsRefusedUnlessAllowed) {
  for (const std::string& challenge :
       {absl::StrCat(kChallenge, std::string(20, 'x')),
        absl::StrCat(kChallenge, "{md5}", std::string(40, 'x'))}) {
    Handshake client(Role::kClient, "secret", /*allow_md5=*/false);
    client.Start();
    const Handshake::Step step = client.Take(challenge);
    EXPECT_THAT(step.status, StatusIs(StatusCode::kUnauthenticated,
                                      HasSubstr("set allow_md5")));
    EXPECT_THAT(step.send, IsEmpty());
  }
  for (const std::string& response :
       {std::string(16, 'x'), absl::StrCat("{md5}", std::string(16, 'x'))}) {
    Handshake listener(Role::kListener, "secret", /*allow_md5=*/false);
    listener.Start();
    const Handshake::Step step = listener.Take(response);
    EXPECT_THAT(step.status, StatusIs(StatusCode::kUnauthenticated,
                                      HasSubstr("set allow_md5")));
    EXPECT_THAT(step.send, ElementsAre("#FAILURE#"));
  }
}

// CPython: test_deliver_challenge_auth_failure
TEST(HandshakeTest, WhatIsNoResponseFails) {
  for (const std::string& response :
       {std::string(), std::string("{sha256}"), std::string("{sha256"),
        absl::StrCat("{sha256}", std::string(31, 'x')),
        absl::StrCat("{sha256}", std::string(33, 'x')),
        absl::StrCat("{sha257}", std::string(32, 'x')), std::string(16, '\0'),
        std::string(32, 'x'), std::string("#WELCOME#"), std::string("{}"),
        std::string(256, '{')}) {
    Handshake listener(Role::kListener, "secret", /*allow_md5=*/true);
    listener.Start();
    const Handshake::Step step = listener.Take(response);
    EXPECT_THAT(step.status,
                StatusIs(StatusCode::kUnauthenticated, ::testing::_))
        << response;
    EXPECT_THAT(step.send, ElementsAre("#FAILURE#"));
    EXPECT_FALSE(listener.done());
  }
}

TEST(HandshakeTest, WhatIsNoChallengeFails) {
  for (const std::string& challenge :
       {std::string(), std::string("hello"), std::string("#CHALLENGE#"),
        absl::StrCat(kChallenge, std::string(19, 'x')),
        absl::StrCat(kChallenge, std::string(40, 'x')),
        absl::StrCat(kChallenge, "{sha1}", std::string(40, 'x')),
        absl::StrCat(kChallenge, "{sha256", std::string(40, 'x'))}) {
    Handshake client(Role::kClient, "secret", /*allow_md5=*/true);
    client.Start();
    const Handshake::Step step = client.Take(challenge);
    EXPECT_THAT(step.status,
                StatusIs(StatusCode::kUnauthenticated, ::testing::_))
        << challenge;
    EXPECT_THAT(step.send, IsEmpty());
  }
}

// CPython: test_answer_challenge_auth_failure
TEST(HandshakeTest, WhatIsNoVerdictFails) {
  for (const std::string& verdict :
       {std::string(), std::string("#WELCOME"), std::string("#WELCOME#\n"),
        std::string("#FAILURE#"), std::string(256, 'x')}) {
    Handshake client(Role::kClient, "secret", false);
    client.Start();
    client.Take(absl::StrCat(kChallenge, "{sha256}", std::string(40, 'x')));
    EXPECT_THAT(client.Take(verdict).status,
                StatusIs(StatusCode::kUnauthenticated, ::testing::_));
    EXPECT_FALSE(client.done());
  }
}

// A client that sends back what it gets proves nothing.
TEST(HandshakeTest, AReflectionOfTheChallengeFails) {
  Handshake listener(Role::kListener, "secret", true);
  const Handshake::Step start = listener.Start();
  EXPECT_THAT(listener.Take(start.send.front()).status,
              StatusIs(StatusCode::kUnauthenticated, ::testing::_));
}

TEST(HandshakeTest, NothingIsTakenBeforeTheStartOrBehindTheEnd) {
  Handshake early(Role::kListener, "secret", false);
  EXPECT_FALSE(early.Take("x").status.ok());
  Handshake failed(Role::kListener, "secret", false);
  failed.Start();
  EXPECT_FALSE(failed.Take("x").status.ok());
  EXPECT_FALSE(failed.Take("x").status.ok());
}

}  // namespace
}  // namespace ipc::rendezvous
