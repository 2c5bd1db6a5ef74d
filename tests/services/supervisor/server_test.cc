// The server in the process of the test, where what it keeps can be seen.
#include "services/supervisor/server.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/frame.h"
#include "services/supervisor/event_loop.h"
#include "services/supervisor/log_buffer.h"
#include "services/supervisor/supervisor.h"
#include "services/supervisor/supervisor.pb.h"
#include "tests/services/supervisor/running_supervisor.h"

namespace parley::supervisor {
namespace {

// A session's logs were let go as a client was told of its end, if they were
// read by then. A slow client that wanted logs only had not waited for them,
// and they were kept for as long as it was connected.
TEST(ServerTest, TheLogsOfASessionThatIsGoneAreFreed) {
  EventLoop loop;
  auto supervisor = Supervisor::Create(loop);
  ASSERT_TRUE(supervisor.ok()) << supervisor.status();
  Server server(loop, **supervisor, [] {});
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const ipc::UniqueFd client(ends[0]);
  server.Serve(ipc::UniqueFd(ends[1]), [] {});
  v1::ClientMessage subscribe;
  subscribe.mutable_subscribe()->set_logs(true);
  std::string bytes;
  ipc::pipe::AppendFrame(subscribe.SerializeAsString(), bytes);
  ASSERT_EQ(write(client.get(), bytes.data(), bytes.size()),
            static_cast<ssize_t>(bytes.size()));

  constexpr size_t kPrinted = 1'000'000;  // more than sockets hold
  std::weak_ptr<LogBuffer> log;
  size_t received = 0;
  const auto receive = [&](uint32_t) {
    char buffer[65536];
    const ssize_t n = read(client.get(), buffer, sizeof(buffer));
    received += std::max<ssize_t>(n, 0);
    // After the turn in which subscribers are served.
    if (received > kPrinted)
      loop.Post([&] { loop.Post([&] { loop.Quit(); }); });
  };
  EventLoop::WatchId watch = 0;
  // Readable when it is subscribed; not read again until the session is gone.
  watch = loop.Watch(client.get(), EPOLLIN, [&](uint32_t) {
    loop.Unwatch(watch);
    v1::SessionSpec session = Session("s");
    v1::ProcessSpec& process = *session.add_processes();
    process = Process("p", "/usr/bin/head",
                      {"-c", absl::StrCat(kPrinted), "/dev/zero"});
    // It ends by itself.
    process.set_stop_signal(SIGCONT);
    process.mutable_stop_grace()->set_seconds(absl::ToInt64Seconds(kPatience));
    ASSERT_TRUE((*supervisor)->Up(session).ok());
    log = (*supervisor)->sessions().at("s")->processes().at("p")->log();
    // Once it is started.
    loop.Post([&] {
      (*supervisor)->Down("s", [&](const absl::Status& status) {
        EXPECT_TRUE(status.ok()) << status;
        watch = loop.Watch(client.get(), EPOLLIN, receive);
      });
    });
  });
  loop.RunAfter(kPatience, [&] { loop.Quit(); });
  loop.Run();
  EXPECT_GT(received, kPrinted);
  EXPECT_TRUE(log.expired());
}

}  // namespace
}  // namespace parley::supervisor
