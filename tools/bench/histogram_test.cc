#include "tools/bench/histogram.h"

#include <cstdint>
#include <memory>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bench {
namespace {

TEST(HistogramTest, OfNothing) {
  EXPECT_EQ(std::make_unique<Histogram>()->Percentile(0.5), 0u);
}

TEST(HistogramTest, SmallValuesAreExact) {
  auto histogram = std::make_unique<Histogram>();
  for (uint64_t i = 1; i <= 100; ++i) histogram->Add(i);
  EXPECT_EQ(histogram->Percentile(0.01), 1u);
  EXPECT_EQ(histogram->Percentile(0.5), 50u);
  EXPECT_EQ(histogram->Percentile(0.99), 99u);
  EXPECT_EQ(histogram->Percentile(1), 100u);
}

// Every value comes back to within 1.6 %, up to the largest.
TEST(HistogramTest, LargeValuesAreClose) {
  for (uint64_t value = 1; value < (uint64_t{1} << 62);
       value += value / 3 + 1) {
    auto histogram = std::make_unique<Histogram>();
    histogram->Add(value);
    const auto found = static_cast<double>(histogram->Percentile(0.5));
    EXPECT_NEAR(found, static_cast<double>(value),
                0.016 * static_cast<double>(value));
  }
  auto histogram = std::make_unique<Histogram>();
  histogram->Add(~uint64_t{0});
  EXPECT_GT(histogram->Percentile(1), uint64_t{1} << 63);
}

}  // namespace
}  // namespace bench
