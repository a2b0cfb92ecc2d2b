#include "quantiles.h"

namespace sut {

Quantiles quantiles_of(std::vector<std::int64_t> latencies) {
  if (latencies.empty()) return {};
  Quantiles quantiles;
  auto sorted_end = latencies.begin();
  for (const auto& [name, fraction] : kQuantiles) {
    const auto index = static_cast<std::ptrdiff_t>(rank_of(fraction, latencies.size()));
    const auto wanted = latencies.begin() + index;
    std::nth_element(sorted_end, wanted, latencies.end());
    sorted_end = wanted;
    quantiles.emplace_back(name, *wanted);
  }
  return quantiles;
}

}  // namespace sut
