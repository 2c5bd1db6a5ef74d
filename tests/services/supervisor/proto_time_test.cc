#include "services/supervisor/proto_time.h"

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::supervisor {
namespace {

TEST(ProtoTimeTest, DurationsHaveOneSign) {
  for (const absl::Duration duration :
       {absl::ZeroDuration(), absl::Milliseconds(1500),
        absl::Milliseconds(-1500), absl::Nanoseconds(-1)}) {
    const google::protobuf::Duration proto = ToProto(duration);
    EXPECT_EQ(FromProto(proto), duration);
    EXPECT_EQ(proto.seconds(), absl::ToInt64Seconds(duration));
    EXPECT_GE(proto.nanos() * absl::ToDoubleSeconds(duration), 0);
  }
}

// There were two of these; one gave negative nanoseconds, which are invalid.
TEST(ProtoTimeTest, TimestampsCountForwardAlsoBefore1970) {
  const google::protobuf::Timestamp proto =
      ToProto(absl::UnixEpoch() - absl::Milliseconds(300));
  EXPECT_EQ(proto.seconds(), -1);
  EXPECT_EQ(proto.nanos(), 700'000'000);
}

}  // namespace
}  // namespace parley::supervisor
