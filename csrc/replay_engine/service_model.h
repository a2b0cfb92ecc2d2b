#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace replay {

// 11 days; keeps any time in an int64_t.
inline constexpr double kLongestStepNs = 1e15;

// The work of one step.
struct StepWork {
  std::uint32_t num_decoding = 0;
  std::uint32_t num_prefill_tokens = 0;
  std::uint64_t num_context_tokens = 0;  // of the sequences that decode: prompts and answers so far
};

// The duration of a step and the length of an answer. A duration of 0 takes no time.
struct ServiceModel {
  double base_us = 0;
  double per_sequence_us = 0;  // that decodes
  double per_prefill_token_us = 0;
  double per_context_token_us = 0;
  double noise = 0;  // standard deviation of the logarithm of a step's duration; its median is 1
  double hiccup_probability = 0;  // of a step; adds hiccup_us
  double hiccup_us = 0;
  std::uint32_t pad_to = 1;  // a step takes as long as with the next multiple of decoding sequences
  std::uint64_t seed = 0;

  // Throws std::invalid_argument for a value out of range.
  void check() const;

  // The duration of one step without noise and hiccups, in nanoseconds.
  std::int64_t step_ns(const StepWork& work) const;

  // The length of the answer to `prompt`, in tokens: determined by seed and prompt, uniform over
  // [min_tokens, max_tokens]. Requires 1 <= min_tokens <= max_tokens.
  std::uint32_t answer_length(std::span<const std::uint32_t> prompt, std::uint32_t min_tokens,
                              std::uint32_t max_tokens) const;
};

// The noise and hiccups of consecutive steps: a sequence determined by the model's seed.
class Jitter {
 public:
  explicit Jitter(const ServiceModel& model);

  // The duration of the next step, of `step_ns` without jitter.
  std::int64_t next(std::int64_t step_ns);

 private:
  double uniform();  // in (0, 1]
  double normal();

  const double noise_;
  const double hiccup_probability_;
  const double hiccup_ns_;
  std::uint64_t state_;
  std::optional<double> spare_;  // normals are made in pairs
};

}  // namespace replay
