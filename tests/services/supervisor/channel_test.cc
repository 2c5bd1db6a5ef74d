#include "services/supervisor/channel.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {
namespace {

using ::testing::HasSubstr;

v1::ChannelSpec Pipe(bool duplex) {
  v1::ChannelSpec spec;
  spec.set_name("c");
  spec.mutable_pipe()->set_duplex(duplex);
  return spec;
}

TEST(ChannelTest, PipeEndsForItsReaderOnceTheSupervisorReleases) {
  absl::StatusOr<Channel> channel = Channel::Create(Pipe(false));
  ASSERT_TRUE(channel.ok()) << channel.status();
  absl::StatusOr<ipc::UniqueFd> reader = channel->Open("r", v1::READ);
  ASSERT_TRUE(reader.ok()) << reader.status();
  {
    absl::StatusOr<ipc::UniqueFd> writer = channel->Open("w", v1::WRITE);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_EQ(write(writer->get(), "x", 1), 1);
  }
  channel->Release(v1::WRITE);
  char c;
  EXPECT_EQ(read(reader->get(), &c, 1), 1);
  EXPECT_EQ(read(reader->get(), &c, 1), 0) << "the end";
  // And yet another writer can be let in later.
  absl::StatusOr<ipc::UniqueFd> writer = channel->Open("w2", v1::WRITE);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_EQ(write(writer->get(), "y", 1), 1);
  EXPECT_EQ(read(reader->get(), &c, 1), 1);
  EXPECT_EQ(c, 'y');
}

TEST(ChannelTest, WriterSeesThatTheLastReaderIsGone) {
  signal(SIGPIPE, SIG_IGN);
  absl::StatusOr<Channel> channel = Channel::Create(Pipe(false));
  ASSERT_TRUE(channel.ok());
  absl::StatusOr<ipc::UniqueFd> writer = channel->Open("w", v1::WRITE);
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ(write(writer->get(), "x", 1), 1) << "the supervisor's end is open";
  channel->Release(v1::READ);
  EXPECT_EQ(write(writer->get(), "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST(ChannelTest, DuplexPipeHasTwoEnds) {
  absl::StatusOr<Channel> channel = Channel::Create(Pipe(true));
  ASSERT_TRUE(channel.ok());
  absl::StatusOr<ipc::UniqueFd> a = channel->Open("a", v1::READ_WRITE);
  absl::StatusOr<ipc::UniqueFd> b = channel->Open("b", v1::READ_WRITE);
  ASSERT_TRUE(a.ok() && b.ok());
  char c;
  ASSERT_EQ(write(a->get(), "x", 1), 1);
  EXPECT_EQ(read(b->get(), &c, 1), 1);
  ASSERT_EQ(write(b->get(), "y", 1), 1);
  EXPECT_EQ(read(a->get(), &c, 1), 1);
  EXPECT_EQ(channel->Open("third", v1::READ_WRITE).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(channel->Open("a", v1::READ).status().message(),
              HasSubstr("grant READ_WRITE of a duplex pipe"));
}

TEST(ChannelTest, WrongRolesAndKindsSayWhatToWrite) {
  absl::StatusOr<Channel> channel = Channel::Create(Pipe(false));
  ASSERT_TRUE(channel.ok());
  EXPECT_THAT(channel->Open("p", v1::READ_WRITE).status().message(),
              HasSubstr("grant READ or WRITE, or make the pipe duplex"));
  v1::ChannelSpec none;
  none.set_name("nothing");
  EXPECT_THAT(Channel::Create(none).status().message(),
              HasSubstr("channel \"nothing\": give it a kind"));
}

}  // namespace
}  // namespace parley::supervisor
