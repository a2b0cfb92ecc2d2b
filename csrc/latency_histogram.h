#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "counter.h"
#include "quantiles.h"

namespace sut {

// Quantiles of any number of latencies in 57 KiB: for a look at a running test, whose exact ones
// would take longer with every sample. A bucket is at most 1/128 of its latencies wide. One writer;
// any thread reads at any time.
class LatencyHistogram {
 public:
  // Writer only.
  void add(std::int64_t latency_ns) {
    const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(0, latency_ns));
    counts_[bucket_of(ns)].add(1);
    if (latency_ns > max_ns_.get()) max_ns_.set(latency_ns);
  }

  // As quantiles_of(), each within 1/128 of the exact one; the max is exact.
  Quantiles quantiles() const {
    std::vector<std::int64_t> counts(counts_.size());
    std::ranges::transform(counts_, counts.begin(), &Counter::get);
    std::size_t total = 0;
    for (const std::int64_t count : counts) total += static_cast<std::size_t>(count);
    if (total == 0) return {};
    const std::int64_t max_ns = max_ns_.get();
    Quantiles quantiles;
    std::size_t bucket = 0, num_below = 0;  // with this bucket
    for (const auto& [name, fraction] : kQuantiles) {
      const std::size_t rank = rank_of(fraction, total);
      while (num_below <= rank) num_below += static_cast<std::size_t>(counts[bucket++]);
      quantiles.emplace_back(name, std::min(max_ns, middle_of(bucket - 1)));
    }
    quantiles.back().second = max_ns;
    return quantiles;
  }

  // Not concurrently with add().
  void clear() {
    for (Counter& count : counts_) count.set(0);
    max_ns_.set(0);
  }

 private:
  static constexpr std::size_t kBits = 7;  // of a latency that choose its bucket, after the first
  static constexpr std::size_t kWidth = std::size_t{1} << kBits;

  // Latencies below kWidth have a bucket each; from there on each power of two has kWidth buckets.
  static std::size_t bucket_of(std::uint64_t ns) {
    if (ns < kWidth) return static_cast<std::size_t>(ns);
    const auto shift = static_cast<std::size_t>(std::bit_width(ns)) - 1 - kBits;
    return shift * kWidth + static_cast<std::size_t>(ns >> shift);
  }
  static std::int64_t middle_of(std::size_t bucket) {
    if (bucket < 2 * kWidth) return static_cast<std::int64_t>(bucket);
    const std::size_t shift = bucket / kWidth - 1;
    const std::uint64_t first = (kWidth + bucket % kWidth) << shift;
    return static_cast<std::int64_t>(first + (std::uint64_t{1} << shift) / 2);
  }

  std::array<Counter, (64 - kBits) * kWidth> counts_;
  Counter max_ns_;
};

}  // namespace sut
