#include "service_model.h"

#include <algorithm>
#include <cmath>

namespace replay {
namespace {

// SplitMix64's finalizer: every input bit reaches every output bit.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

std::int64_t ServiceModel::step_ns(std::uint32_t num_decoding,
                                   std::uint32_t num_prefill_tokens) const {
  double us = step_base_us + step_per_sequence_us * num_decoding;
  if (prefill_tokens_per_s > 0) us += num_prefill_tokens / prefill_tokens_per_s * 1e6;
  return std::llround(std::min(us * 1e3, kLongestStepNs));
}

std::uint32_t ServiceModel::answer_length(std::span<const std::uint32_t> prompt,
                                          std::uint32_t min_tokens,
                                          std::uint32_t max_tokens) const {
  std::uint64_t hash = mix(seed);
  for (const std::uint32_t token : prompt) hash = (hash ^ token) * 0x100000001b3u;  // FNV-1a
  const std::uint64_t num_lengths = std::uint64_t{max_tokens} - min_tokens + 1;
  return min_tokens + static_cast<std::uint32_t>(mix(hash) % num_lengths);
}

}  // namespace replay
