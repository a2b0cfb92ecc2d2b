#pragma once

#include <cstdint>
#include <span>

namespace replay {

// 11 days: keeps any time in an int64_t.
inline constexpr double kLongestStepNs = 1e15;

// How long a step takes and how long an answer is. A duration or rate of 0 costs no time.
struct ServiceModel {
  double prefill_tokens_per_s = 0;
  double step_base_us = 0;
  double step_per_sequence_us = 0;
  std::uint64_t seed = 0;

  // The time of one step with `num_decoding` sequences that decode and
  // `num_prefill_tokens` prompt tokens computed, in nanoseconds.
  std::int64_t step_ns(std::uint32_t num_decoding, std::uint32_t num_prefill_tokens) const;

  // The number of tokens answered to `prompt`: fixed by seed and prompt, spread evenly over
  // [min_tokens, max_tokens]. Requires 1 <= min_tokens <= max_tokens.
  std::uint32_t answer_length(std::span<const std::uint32_t> prompt, std::uint32_t min_tokens,
                              std::uint32_t max_tokens) const;
};

}  // namespace replay
