#include "ipc/proto/proto_io.h"

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/struct.pb.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/pipe/connection.h"
#include "tests/testing/status_matchers.h"

namespace ipc::proto {
namespace {

using ::absl::StatusCode;
using ::google::protobuf::Duration;
using ::google::protobuf::Struct;
using ::ipc::pipe::Connection;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Minutes(2);

class ProtoIoTest : public ::testing::Test {
 protected:
  ProtoIoTest() : ends_(*Connection::CreatePair()) {}
  std::pair<Connection, Connection> ends_;
};

TEST_F(ProtoIoTest, AMessageArrivesAsItWas) {
  Struct sent;
  (*sent.mutable_fields())["answer"].set_number_value(42);
  ASSERT_THAT(SendProto(ends_.first, sent), IsOk());
  const auto received = ReceiveProto<Struct>(ends_.second, kLong);
  ASSERT_THAT(received, IsOk());
  EXPECT_EQ(received->SerializeAsString(), sent.SerializeAsString());
}

TEST_F(ProtoIoTest, AnEmptyMessageIsAMessage) {
  ASSERT_THAT(SendProto(ends_.first, Duration()), IsOk());
  EXPECT_THAT(ReceiveProto<Duration>(ends_.second, kLong), IsOk());
}

TEST_F(ProtoIoTest, WhatIsNoSuchMessageIsToldAndTheNextOneComes) {
  ASSERT_THAT(ends_.first.Send("\xff\xff"), IsOk());
  Duration duration;
  duration.set_seconds(7);
  ASSERT_THAT(SendProto(ends_.first, duration), IsOk());
  EXPECT_THAT(ReceiveProto<Duration>(ends_.second, kLong),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("google.protobuf.Duration")));
  EXPECT_EQ(ReceiveProto<Duration>(ends_.second, kLong)->seconds(), 7);
}

TEST_F(ProtoIoTest, ErrorsAreThoseOfTheConnection) {
  EXPECT_THAT(ReceiveProto<Duration>(ends_.second, absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("")));
  ends_.first.Close();
  EXPECT_THAT(ReceiveProto<Duration>(ends_.second, kLong),
              StatusIs(StatusCode::kOutOfRange, HasSubstr("")));
  EXPECT_THAT(SendProto(ends_.second, Duration()),
              StatusIs(StatusCode::kUnavailable, HasSubstr("")));
}

}  // namespace
}  // namespace ipc::proto
