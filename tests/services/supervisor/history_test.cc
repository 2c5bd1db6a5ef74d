#include "services/supervisor/history.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {
namespace {

TEST(HistoryTest, NumbersEventsAndForgetsTheOldest) {
  History history(/*capacity=*/3);
  EXPECT_EQ(history.revision(), 0u);
  EXPECT_TRUE(history.Reaches(0));
  EXPECT_FALSE(history.Reaches(1)) << "the future";
  for (int i = 1; i <= 5; ++i) {
    v1::Event event;
    event.mutable_process()->set_pid(i);
    history.Append(event);
  }
  EXPECT_EQ(history.revision(), 5u);
  EXPECT_FALSE(history.Reaches(1)) << "event 2 is forgotten";
  ASSERT_TRUE(history.Reaches(2));
  for (int i = 3; i <= 5; ++i) {
    EXPECT_EQ(history.At(i).process().pid(), i);
    EXPECT_EQ(history.At(i).revision(), static_cast<uint64_t>(i));
    EXPECT_TRUE(history.At(i).has_time());
  }
  EXPECT_TRUE(history.Reaches(5));
}

}  // namespace
}  // namespace parley::supervisor
