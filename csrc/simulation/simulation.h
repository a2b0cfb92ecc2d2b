#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "../replay_engine/scheduler.h"
#include "../stats.h"
#include "schedule.h"

namespace sut {

// The system that a simulated test runs on: engines behind the dispatcher, which differ only in
// their speed.
struct SimulatedSystem {
  replay::ServiceModel service;  // the seed of replica i is service.seed + i
  replay::Limits limits;         // of each engine
  int num_replicas = 1;
  std::uint32_t credit = 0;  // the most samples in flight on a replica
  // Replica i's step takes step_factors[i] times as long as the service model's; empty for 1 each.
  std::vector<double> step_factors = {};
};

// What a simulated test measures, and when it ends early.
struct SimulatedTest {
  std::span<const std::uint32_t> prompt_tokens;  // by sample index
  std::span<const std::uint32_t> output_tokens;
  std::optional<std::int64_t> ttft_limit_ns = {};
  std::optional<std::int64_t> tpot_limit_ns = {};
  // End once this many samples are over one of the limits, or at this time.
  std::optional<std::int64_t> stop_over = {};
  std::optional<std::int64_t> stop_after_ns = {};
  bool log_steps = false;
};

// Steps of all replicas in order of their end, as columns.
struct StepColumns {
  std::vector<std::int64_t> replica, end_ns, duration_ns;
  std::vector<std::int64_t> num_decoding, num_prefill_tokens, context_tokens;
};

struct Simulated {
  SampleColumns samples;  // the completed ones in order of completion; times from the test's start
  StepColumns steps;      // empty unless asked for
  std::int64_t end_ns = 0;
  // Samples over a limit. For TTFT, those of them that still wait for their first token count too.
  std::int64_t num_ttft_over = 0;
  std::int64_t num_tpot_over = 0;
  std::int64_t num_over = 0;  // over one or both
  bool stopped = false;       // ended early
};

// Run a test in virtual time: LoadGen's schedule, the dispatcher's choice of replica (ReplicaChoice),
// and the replay engine's batching and service model (replay::Scheduler). Determined by its
// arguments. Nothing between them takes time.
//
// Throws std::invalid_argument.
Simulated simulate(const Schedule& schedule, const SimulatedSystem& system,
                   const SimulatedTest& test);

}  // namespace sut
