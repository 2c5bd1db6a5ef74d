#include "ipc/shm/event.h"

#include <fcntl.h>

#include <atomic>
#include <thread>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/segment.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

// CPython: _TestEvent.test_event
TEST(EventTest, Event) {
  Event event = *Event::CreateAnonymous();
  EXPECT_FALSE(event.IsSet());
  EXPECT_THAT(event.Wait(absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("nobody has set it")));
  const absl::Time before = absl::Now();
  EXPECT_FALSE(event.Wait(absl::Milliseconds(40)).ok());
  EXPECT_GE(absl::Now() - before, absl::Milliseconds(40));

  EXPECT_THAT(event.Set(), IsOk());
  EXPECT_TRUE(event.IsSet());
  EXPECT_THAT(event.Wait(), IsOk());
  EXPECT_THAT(event.Set(), IsOk());
  EXPECT_TRUE(event.IsSet());
  EXPECT_THAT(event.Clear(), IsOk());
  EXPECT_THAT(event.Clear(), IsOk());
  EXPECT_FALSE(event.IsSet());

  Child child =
      Child::Fork([&](Child::Side) { return event.Set().ok() ? 0 : 1; });
  EXPECT_THAT(event.Wait(kPatience), IsOk());
  EXPECT_EQ(child.Wait(), 0);
}

// Who waits is let through by a pulse, too, in a child that has inherited the
// event.
TEST(EventTest, APulseLetsThroughWhoWaits) {
  Event event = *Event::CreateAnonymous();
  Child child = Child::Fork([&](Child::Side side) {
    // Before the pulse for sure, by the same memory.
    side.Tell();
    return event.Wait(kPatience).ok() ? 0 : 1;
  });
  ASSERT_TRUE(child.Hear());
  // Whether it sleeps already cannot be seen; until it is gone, pulse.
  std::atomic<int> status = -1;
  std::thread pulses([&] { status = child.Wait(); });
  while (status == -1) {
    ASSERT_THAT(event.Set(), IsOk());
    ASSERT_THAT(event.Clear(), IsOk());
  }
  pulses.join();
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(event.IsSet());
}

TEST(EventTest, MappedForReadingItCanBeWaitedForButNotSet) {
  Event event = *Event::CreateAnonymous();
  Event reading = *Event::Attach(
      *Segment::FromFd(UniqueFd(fcntl(event.fd(), F_DUPFD_CLOEXEC, 0)),
                       Access::kRead),
      0);
  EXPECT_THAT(reading.Set(),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("")));
  EXPECT_FALSE(reading.IsSet());
  Child child =
      Child::Fork([&](Child::Side) { return event.Set().ok() ? 0 : 1; });
  EXPECT_THAT(reading.Wait(kPatience), IsOk());
  EXPECT_EQ(child.Wait(), 0);
}

TEST(EventTest, WhoIsKilledWaitingIsForgotten) {
  Event event = *Event::CreateAnonymous();
  Child child = Child::Fork([&](Child::Side side) {
    side.Tell();
    return event.Wait().ok() ? 0 : 1;
  });
  ASSERT_TRUE(child.Hear());
  child.Kill();
  EXPECT_THAT(event.Set(), IsOk());
  EXPECT_THAT(event.Wait(), IsOk());
}

}  // namespace
}  // namespace ipc::shm
