#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace sut {

// A named quantile of a set of latencies, e.g. {"p99", 1'234'567}.
using Quantiles = std::vector<std::pair<std::string, std::int64_t>>;

inline constexpr std::array<std::pair<const char*, double>, 5> kQuantiles{
    {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1.0}}};

// LoadGen's rule: the quantile of `count` sorted latencies, at least one, is the one at this index.
inline std::size_t rank_of(double fraction, std::size_t count) {
  return std::min(count - 1, static_cast<std::size_t>(static_cast<double>(count) * fraction));
}

// The exact kQuantiles. Empty for no latencies.
Quantiles quantiles_of(std::vector<std::int64_t> latencies);

}  // namespace sut
