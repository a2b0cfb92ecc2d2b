#pragma once

#include <cstdint>
#include <span>

namespace replay {

// 11 days; keeps any time in an int64_t.
inline constexpr double kLongestStepNs = 1e15;

// The duration of a step and the length of an answer. A duration or rate of 0 takes no time.
struct ServiceModel {
  double prefill_tokens_per_s = 0;
  double step_base_us = 0;
  double step_per_sequence_us = 0;
  std::uint64_t seed = 0;

  // The duration of one step, in nanoseconds.
  std::int64_t step_ns(std::uint32_t num_decoding, std::uint32_t num_prefill_tokens) const;

  // The length of the answer to `prompt`, in tokens: determined by seed and prompt, uniform over
  // [min_tokens, max_tokens]. Requires 1 <= min_tokens <= max_tokens.
  std::uint32_t answer_length(std::span<const std::uint32_t> prompt, std::uint32_t min_tokens,
                              std::uint32_t max_tokens) const;
};

}  // namespace replay
