#include "services/control/test_environment.h"

#include <stdlib.h>

#include "gtest/gtest.h"

namespace parley::control {
namespace {

TEST(TestEnvironmentTest, LeavesTimeToWriteTheReport) {
  setenv("TEST_TIMEOUT", "300", 1);
  EXPECT_EQ(TestEnvironment::Get().time_limit, absl::Seconds(264));
  setenv("TEST_TIMEOUT", "10", 1);
  EXPECT_EQ(TestEnvironment::Get().time_limit, absl::Seconds(5));
  unsetenv("TEST_TIMEOUT");
  EXPECT_EQ(TestEnvironment::Get().time_limit, absl::InfiniteDuration());
}

TEST(TestEnvironmentTest, EachScenarioIsInOneShard) {
  TestEnvironment first;
  first.shards = 2;
  TestEnvironment second = first;
  second.shard = 1;
  for (int i = 0; i < 5; ++i) {
    EXPECT_NE(first.Selects(i, "x"), second.Selects(i, "x"));
  }
}

TEST(TestEnvironmentTest, FiltersByPatternOrPart) {
  TestEnvironment environment;
  environment.only = "pi*";
  EXPECT_TRUE(environment.Selects(0, "pipe"));
  EXPECT_FALSE(environment.Selects(0, "shm"));
  environment.only = "ip";
  EXPECT_TRUE(environment.Selects(0, "pipe"));
}

}  // namespace
}  // namespace parley::control
