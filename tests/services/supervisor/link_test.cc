#include "services/supervisor/link.h"

#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/frame.h"
#include "services/supervisor/event_loop.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {
namespace {

using ::testing::ElementsAre;

constexpr absl::Duration kPatience = absl::Seconds(30);

// A link whose client is the other end of a socketpair. Answers each request at
// once.
class LinkTest : public testing::Test {
 protected:
  LinkTest() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    client_.Reset(ends[0]);
    link_ = std::make_unique<Link>(
        loop_, ipc::UniqueFd(ends[1]),
        Link::Callbacks{
            .on_message =
                [this](const v1::ClientMessage& message) {
                  requests_.push_back(message.id());
                  Answer(message.id());
                },
            .on_writable = [] {},
            .on_close =
                [this](const absl::Status&) {
                  closed_ = true;
                  loop_.Quit();
                },
        });
    loop_.RunAfter(kPatience, [this] { loop_.Quit(); });
  }

  void Answer(uint64_t id) {
    v1::ServerMessage message;
    message.mutable_response()->set_id(id);
    link_->Send(message);
    link_->Flush();
  }

  EventLoop loop_;
  ipc::UniqueFd client_;
  std::unique_ptr<Link> link_;
  std::vector<uint64_t> requests_;
  bool closed_ = false;
};

// Its socket polls as writable, and gives EPIPE: once, the loop went round and
// round without ever waiting, for as long as the client lived.
TEST_F(LinkTest, AClientThatNoLongerReadsButHoldsItsEndOpenIsClosed) {
  ASSERT_EQ(shutdown(client_.get(), SHUT_RD), 0);
  Answer(1);
  loop_.Run();
  EXPECT_TRUE(closed_);
}

TEST_F(LinkTest, WhatAClientAskedBeforeItWentIsDone) {
  std::string bytes;
  for (uint64_t id : {1, 2, 3}) {
    v1::ClientMessage message;
    message.set_id(id);
    message.mutable_list();
    ipc::pipe::AppendFrame(message.SerializeAsString(), bytes);
  }
  ASSERT_EQ(write(client_.get(), bytes.data(), bytes.size()),
            static_cast<ssize_t>(bytes.size()));
  client_.Reset();
  loop_.Run();
  EXPECT_TRUE(closed_);
  EXPECT_THAT(requests_, ElementsAre(1, 2, 3));
}

}  // namespace
}  // namespace parley::supervisor
