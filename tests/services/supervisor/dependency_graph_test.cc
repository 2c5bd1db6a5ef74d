#include "services/supervisor/dependency_graph.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace parley::supervisor {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(DependencyGraphTest, FindsACycleAndOnlyThat) {
  EXPECT_THAT(FindCycle({}), IsEmpty());
  // A diamond.
  EXPECT_THAT(FindCycle({{1, 2}, {3}, {3}, {}}), IsEmpty());
  EXPECT_THAT(FindCycle({{0}}), ElementsAre(0, 0));
  // The way to it does not belong to it.
  EXPECT_THAT(FindCycle({{}, {0, 2}, {3}, {0, 4}, {2}}),
              ElementsAre(2, 3, 4, 2));
}

TEST(DependencyGraphTest, IsNotLimitedByTheStackOfTheThread) {
  constexpr int kNodes = 1'000'000;
  DependencyEdges chain(kNodes);
  for (int i = 0; i + 1 < kNodes; ++i) chain[i] = {i + 1};
  EXPECT_THAT(FindCycle(chain), IsEmpty());
  chain[kNodes - 1] = {kNodes - 2};
  EXPECT_THAT(FindCycle(chain),
              ElementsAre(kNodes - 2, kNodes - 1, kNodes - 2));
}

TEST(DependencyGraphTest, WavesAreByTheLongestWay) {
  EXPECT_THAT(Waves({{1, 2}, {3}, {}, {2}}),
              ElementsAre(ElementsAre(2), ElementsAre(3), ElementsAre(1),
                          ElementsAre(0)));
}

}  // namespace
}  // namespace parley::supervisor
