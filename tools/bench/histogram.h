// How often each duration was seen, to within 1.6 %, in memory of fixed size,
// so that it can be kept by another process.
//
// One writer; read it when the writer has gone.
#ifndef TOOLS_BENCH_HISTOGRAM_H_
#define TOOLS_BENCH_HISTOGRAM_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace bench {

class Histogram {
 public:
  void Add(uint64_t value) { ++counts_[BucketOf(value)]; }

  // The value that `fraction` of all are not above; 0 if there is none.
  uint64_t Percentile(double fraction) const {
    uint64_t total = 0;
    for (const uint32_t count : counts_) total += count;
    const double wanted = fraction * static_cast<double>(total);
    uint64_t seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (counts_[i] != 0 && static_cast<double>(seen) >= wanted) {
        return MiddleOf(i);
      }
    }
    return 0;
  }

 private:
  // Each power of two is divided into 64 buckets; values below 64 are exact.
  static constexpr int kBits = 6;
  static constexpr size_t kBuckets = (64 - kBits + 1) << kBits;

  static size_t BucketOf(uint64_t value) {
    const int shift = std::bit_width(value) - (kBits + 1);
    if (shift <= 0) return value;
    return (static_cast<size_t>(shift) << kBits) + (value >> shift);
  }
  static uint64_t MiddleOf(size_t bucket) {
    if (bucket < (size_t{2} << kBits)) return bucket;
    const int shift = static_cast<int>(bucket >> kBits) - 1;
    const uint64_t low = (bucket - (static_cast<size_t>(shift) << kBits))
                         << shift;
    return low + (uint64_t{1} << shift) / 2;
  }

  std::array<uint32_t, kBuckets> counts_ = {};
};

}  // namespace bench

#endif  // TOOLS_BENCH_HISTOGRAM_H_
