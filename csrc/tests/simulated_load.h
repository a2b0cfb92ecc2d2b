#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "../simulation/simulation.h"

using sut::Schedule;
using sut::SimulatedSystem;
using sut::SimulatedTest;
using Tokens = std::vector<std::uint32_t>;

inline constexpr replay::ServiceModel kService{
    .base_us = 100, .per_sequence_us = 10, .per_prefill_token_us = 1};
inline constexpr replay::Limits kLimits{
    .max_num_seqs = 4, .max_model_len = 100, .max_num_batched_tokens = 16};

inline SimulatedSystem system_of(int num_replicas) { return {kService, kLimits, num_replicas, 5}; }

inline SimulatedTest test_of(const Tokens& prompts, const Tokens& answers) {
  return {.prompt_tokens = prompts, .output_tokens = answers, .log_steps = true};
}

// Queries for samples 0, 1, 2, ... in turn.
inline Schedule arriving(std::vector<std::int64_t> arrival_ns, std::size_t num_samples) {
  Schedule schedule{std::move(arrival_ns), {}};
  for (std::size_t i = 0; i < schedule.size(); ++i)
    schedule.sample_index.push_back(static_cast<std::int64_t>(i % num_samples));
  return schedule;
}

struct Load {
  Tokens prompts;
  Tokens answers;
  Schedule schedule;
};

// More than one replica of system_of() can serve at once.
inline Load heavy_load() {
  Load load;
  for (std::uint32_t i = 0; i < 50; ++i) {
    load.prompts.push_back(1 + i * 7 % 60);
    load.answers.push_back(1 + i * 11 % 40);
  }
  std::vector<std::int64_t> arrival_ns;
  for (std::int64_t i = 0; i < 400; ++i) arrival_ns.push_back(i * i % 97 + i * 150'000);
  std::sort(arrival_ns.begin(), arrival_ns.end());
  load.schedule = arriving(std::move(arrival_ns), 50);
  return load;
}
