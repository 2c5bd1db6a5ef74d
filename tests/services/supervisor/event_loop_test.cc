#include "services/supervisor/event_loop.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::supervisor {
namespace {

TEST(EventLoopTest, HandlersMayUnwatchEachOtherAndThemselves) {
  EventLoop loop;
  int a[2], b[2];
  ASSERT_EQ(pipe2(a, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(b, O_CLOEXEC), 0);
  ASSERT_EQ(write(a[1], "x", 1), 1);
  ASSERT_EQ(write(b[1], "x", 1), 1);
  // Both are ready in one batch, and whichever comes first drops both.
  int calls = 0;
  EventLoop::WatchId watches[2];
  const auto drop_both = [&](uint32_t) {
    ++calls;
    loop.Unwatch(watches[0]);
    loop.Unwatch(watches[1]);
    loop.Post([&] { loop.Quit(); });
  };
  watches[0] = loop.Watch(a[0], EPOLLIN, drop_both);
  watches[1] = loop.Watch(b[0], EPOLLIN, drop_both);
  loop.Run();
  EXPECT_EQ(calls, 1);
  for (int fd : {a[0], a[1], b[0], b[1]}) close(fd);
}

TEST(EventLoopTest, TimersRunInOrderNotBeforeTheirTimeAndCanBeCancelled) {
  EventLoop loop;
  std::vector<int> order;
  const absl::Time start = absl::Now();
  loop.RunAfter(absl::Milliseconds(20), [&] {
    order.push_back(2);
    loop.Quit();
  });
  loop.RunAfter(absl::Milliseconds(5), [&] { order.push_back(1); });
  const EventLoop::TimerId cancelled =
      loop.RunAfter(absl::Milliseconds(1), [&] { order.push_back(0); });
  loop.Cancel(cancelled);
  loop.Run();
  EXPECT_THAT(order, testing::ElementsAre(1, 2));
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(20));
}

TEST(EventLoopTest, WhatIsPostedWhileRunningPostedRunsInTheNextRound) {
  EventLoop loop;
  int rounds = 0;
  std::function<void()> again = [&] {
    if (++rounds == 3) {
      loop.Quit();
    } else {
      loop.Post(again);
    }
  };
  loop.Post(again);
  loop.Run();
  EXPECT_EQ(rounds, 3);
}

}  // namespace
}  // namespace parley::supervisor
