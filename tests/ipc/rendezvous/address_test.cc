#include "ipc/rendezvous/address.h"

#include <netinet/in.h>
#include <sys/un.h>

#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace ipc::rendezvous {
namespace {

using ::absl::StatusCode;
using ::testing::HasSubstr;

TEST(AddressTest, IsReadAsItIsWritten) {
  for (const char* text :
       {"unix:/run/x.sock", "unix:relative", "abstract:name",
        "abstract:", "tcp:127.0.0.1:80", "tcp:localhost:0", "tcp:::1:65535"}) {
    const auto address = Address::Parse(text);
    ASSERT_THAT(address, IsOk()) << text;
    EXPECT_EQ(address->ToString(), text);
    EXPECT_EQ(*Address::Parse(address->ToString()), *address);
  }
  EXPECT_EQ(*Address::Parse("tcp:::1:5"), Address::Tcp("::1", 5));
  EXPECT_EQ(*Address::Parse("unix:tcp:x:1"), Address::Unix("tcp:x:1"));
}

TEST(AddressTest, AnythingElseIsRefusedWithTheForms) {
  for (const char* text :
       {"", "/run/x.sock", "unix:", "tcp:", "tcp:host", "tcp:host:", "tcp::80",
        "tcp:host:65536", "tcp:host:-1", "http://x"}) {
    EXPECT_THAT(Address::Parse(text),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("unix:PATH")))
        << text;
  }
}

TEST(AddressTest, NamesThatTheKernelWouldCutAreRefused) {
  EXPECT_THAT(Address::Unix(std::string(107, 'x')).ToSocket(), IsOk());
  EXPECT_THAT(Address::Unix(std::string(108, 'x')).ToSocket(),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("107")));
  EXPECT_THAT(Address::Abstract(std::string(107, 'x')).ToSocket(), IsOk());
  EXPECT_THAT(Address::Abstract(std::string(108, 'x')).ToSocket(),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("107")));
  EXPECT_THAT(Address::Unix(std::string("a\0b", 3)).ToSocket(),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("zero byte")));
  EXPECT_THAT(Address::Unix("").ToSocket(),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("path")));
}

TEST(AddressTest, OnlyThisMachineIsServed) {
  for (const char* host : {"localhost", "127.0.0.1", "127.255.0.9", "::1"}) {
    EXPECT_THAT(Address::Tcp(host, 1).ToSocket(), IsOk()) << host;
  }
  for (const char* host :
       {"0.0.0.0", "::", "10.0.0.1", "example.com", "128.0.0.1", "127.1", ""}) {
    EXPECT_THAT(Address::Tcp(host, 1).ToSocket(),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("tunnel")))
        << host;
  }
}

TEST(AddressTest, ZerosInAnAbstractNameCount) {
  const auto socket = Address::Abstract(std::string("a\0b", 3)).ToSocket();
  ASSERT_THAT(socket, IsOk());
  EXPECT_EQ(socket->size, offsetof(sockaddr_un, sun_path) + 4);
}

}  // namespace
}  // namespace ipc::rendezvous
