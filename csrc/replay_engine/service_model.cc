#include "service_model.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <utility>

namespace replay {
namespace {

// SplitMix64's finalizer: every input bit reaches every output bit.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

std::int64_t rounded(double ns) { return std::llround(std::min(ns, kLongestStepNs)); }

}  // namespace

void ServiceModel::check() const {
  for (const double value : {base_us, per_sequence_us, per_prefill_token_us, per_context_token_us,
                             noise, hiccup_probability, hiccup_us})
    if (!std::isfinite(value) || value < 0)
      throw std::invalid_argument("a service model's numbers must be at least 0, and finite");
  if (hiccup_probability > 1) throw std::invalid_argument("hiccup_probability must be at most 1");
  if (pad_to < 1) throw std::invalid_argument("pad_to must be at least 1");
}

std::int64_t ServiceModel::step_ns(const StepWork& work) const {
  const double num_added = (pad_to - work.num_decoding % pad_to) % pad_to;
  const double num_decoding = num_added + work.num_decoding;
  const double us = base_us + per_sequence_us * num_decoding +
                    per_prefill_token_us * work.num_prefill_tokens +
                    per_context_token_us * static_cast<double>(work.num_context_tokens);
  return rounded(us * 1e3);
}

std::uint32_t ServiceModel::answer_length(std::span<const std::uint32_t> prompt,
                                          std::uint32_t min_tokens,
                                          std::uint32_t max_tokens) const {
  std::uint64_t hash = mix(seed);
  for (const std::uint32_t token : prompt) hash = (hash ^ token) * 0x100000001b3u;  // FNV-1a
  const std::uint64_t num_lengths = std::uint64_t{max_tokens} - min_tokens + 1;
  return min_tokens + static_cast<std::uint32_t>(mix(hash) % num_lengths);
}

Jitter::Jitter(const ServiceModel& model)
    : noise_(model.noise),
      hiccup_probability_(model.hiccup_probability),
      hiccup_ns_(model.hiccup_us * 1e3),
      state_(mix(model.seed)) {}

std::int64_t Jitter::next(std::int64_t step_ns) {
  double ns = static_cast<double>(step_ns);
  if (noise_ > 0) ns *= std::exp(noise_ * normal());
  if (hiccup_probability_ > 0 && uniform() <= hiccup_probability_) ns += hiccup_ns_;
  return rounded(ns);
}

double Jitter::uniform() {
  state_ = mix(state_);
  return static_cast<double>((state_ >> 11) + 1) * 0x1p-53;
}

double Jitter::normal() {  // Box and Muller's
  if (spare_) return *std::exchange(spare_, std::nullopt);
  const double radius = std::sqrt(-2 * std::log(uniform()));
  const double angle = 2 * std::numbers::pi * uniform();
  spare_ = radius * std::sin(angle);
  return radius * std::cos(angle);
}

}  // namespace replay
