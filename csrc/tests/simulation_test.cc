// A test in virtual time: times that can be worked out by hand, and laws that hold for any.
#include "../simulation/simulation.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "check.h"
#include "simulated_load.h"

namespace {

void times_are_those_of_the_service_model() {
  const Tokens prompts{5, 3};
  const Tokens answers{3, 1};
  const Schedule schedule = arriving({1000, 50'000}, 2);
  const auto simulated =
      simulate(schedule, system_of(1), test_of(prompts, answers));
  // Sample 0: its prompt takes 105 us, then two steps; the prompt of sample 1 joins the first.
  const auto& steps = simulated.steps;
  CHECK((steps.end_ns == std::vector<std::int64_t>{106'000, 219'000, 329'000}));
  CHECK((steps.duration_ns == std::vector<std::int64_t>{105'000, 113'000, 110'000}));
  CHECK((steps.num_decoding == std::vector<std::int64_t>{0, 1, 1}));
  CHECK((steps.num_prefill_tokens == std::vector<std::int64_t>{5, 3, 0}));
  CHECK((steps.context_tokens == std::vector<std::int64_t>{0, 6, 7}));
  CHECK((steps.replica == std::vector<std::int64_t>{0, 0, 0}));
  const auto& samples = simulated.samples;
  CHECK((samples.sample_index == std::vector<std::int64_t>{1, 0}));
  CHECK((samples.issued_ns == std::vector<std::int64_t>{50'000, 1000}));
  CHECK((samples.admitted_ns == std::vector<std::int64_t>{50'000, 1000}));
  CHECK((samples.first_token_ns == std::vector<std::int64_t>{219'000, 106'000}));
  CHECK((samples.completed_ns == std::vector<std::int64_t>{219'000, 329'000}));
  CHECK((samples.prompt_tokens == std::vector<std::int64_t>{3, 5}));
  CHECK((samples.output_tokens == std::vector<std::int64_t>{1, 3}));
  CHECK(simulated.end_ns == 329'000 && !simulated.stopped);
}

// An arrival at the end of a step joins the next one, as in the replay engine.
void an_arrival_at_a_steps_end_joins_the_next() {
  const Tokens prompts{5};
  const Tokens answers{2};
  const auto simulated =
      simulate(arriving({0, 105'000}, 1), system_of(1), test_of(prompts, answers));
  CHECK((simulated.steps.num_decoding == std::vector<std::int64_t>{0, 1, 1}));
  CHECK((simulated.steps.num_prefill_tokens == std::vector<std::int64_t>{5, 5, 0}));
}

std::int64_t sum(const std::vector<std::int64_t>& column) {
  return std::reduce(column.begin(), column.end());
}

// The replica's credit is never exceeded, its steps follow one another, and every token that a
// sample needs is computed once.
void laws_of_conservation_hold() {
  const Load load = heavy_load();
  for (const int num_replicas : {1, 3}) {
    SimulatedSystem system = system_of(num_replicas);
    system.service.noise = 0.2;
    system.service.hiccup_probability = 0.05;
    system.service.hiccup_us = 700;
    const auto simulated =
        simulate(load.schedule, system, test_of(load.prompts, load.answers));
    const auto& samples = simulated.samples;
    CHECK(samples.sample_index.size() == load.schedule.size());
    CHECK(std::is_sorted(samples.completed_ns.begin(), samples.completed_ns.end()));
    std::int64_t num_prompt_tokens = 0;
    std::int64_t num_later_tokens = 0;
    std::map<std::int64_t, std::vector<std::pair<std::int64_t, int>>> changes;  // by replica
    for (std::size_t i = 0; i < samples.sample_index.size(); ++i) {
      CHECK(samples.issued_ns[i] <= samples.admitted_ns[i]);
      CHECK(samples.admitted_ns[i] < samples.first_token_ns[i]);
      CHECK(samples.first_token_ns[i] <= samples.completed_ns[i]);
      num_prompt_tokens += samples.prompt_tokens[i];
      num_later_tokens += samples.output_tokens[i] - 1;
      changes[samples.replica[i]].emplace_back(samples.admitted_ns[i], +1);
      changes[samples.replica[i]].emplace_back(samples.completed_ns[i], -1);
    }
    CHECK(changes.size() == static_cast<std::size_t>(num_replicas));
    for (auto& [replica, of_replica] : changes) {
      std::sort(of_replica.begin(), of_replica.end());  // an end before a start at the same time
      int num_in_flight = 0;
      for (const auto& [at_ns, change] : of_replica) CHECK((num_in_flight += change) <= 5);
    }
    const auto& steps = simulated.steps;
    CHECK(sum(steps.num_prefill_tokens) == num_prompt_tokens);
    CHECK(sum(steps.num_decoding) == num_later_tokens);
    std::map<std::int64_t, std::int64_t> ended_ns;
    for (std::size_t i = 0; i < steps.end_ns.size(); ++i) {
      CHECK(steps.num_decoding[i] <= 4);
      CHECK(steps.num_decoding[i] + steps.num_prefill_tokens[i] <= 16);
      CHECK(steps.end_ns[i] - steps.duration_ns[i] >= ended_ns[steps.replica[i]]);
      ended_ns[steps.replica[i]] = steps.end_ns[i];
    }
    SimulatedTest unlogged = test_of(load.prompts, load.answers);
    unlogged.log_steps = false;
    const auto again = simulate(load.schedule, system, unlogged);
    CHECK(again.samples.completed_ns == samples.completed_ns && again.steps.end_ns.empty());
  }
}

void each_replica_has_its_own_noise() {
  const Tokens prompts{5};
  const Tokens answers{1};
  SimulatedSystem system = system_of(2);
  system.service.noise = 0.2;
  const auto simulated = simulate(arriving({0, 0}, 1), system, test_of(prompts, answers));
  CHECK(simulated.steps.replica[0] != simulated.steps.replica[1]);
  CHECK(simulated.steps.duration_ns[0] != simulated.steps.duration_ns[1]);
}

void a_light_load_reaches_every_replica() {
  const Tokens prompts{5};
  const Tokens answers{2};
  const Schedule schedule = arriving({0, 10'000'000, 20'000'000, 30'000'000}, 1);
  const auto simulated = simulate(schedule, system_of(3), test_of(prompts, answers));
  CHECK((simulated.samples.replica == std::vector<std::int64_t>{0, 1, 2, 0}));
}

void a_slow_replica_takes_longer_for_a_step() {
  const Tokens prompts{5};
  const Tokens answers{3};
  SimulatedSystem system = system_of(2);
  system.step_factors = {1, 2.5};
  const auto simulated = simulate(arriving({0, 0}, 1), system, test_of(prompts, answers));
  CHECK((simulated.samples.replica == std::vector<std::int64_t>{0, 1}));
  CHECK((simulated.samples.first_token_ns == std::vector<std::int64_t>{105'000, 262'500}));
  CHECK((simulated.samples.completed_ns == std::vector<std::int64_t>{325'000, 812'500}));
  system.service.hiccup_probability = 1;
  system.service.hiccup_us = 1000;
  CHECK(simulate(arriving({0, 0}, 1), system, test_of(prompts, answers)).samples.first_token_ns[1] ==
        262'500 + 2'500'000);
}

// Unlike replicas get samples by what they complete: the completions per second of both together
// are those of each alone, and neither starves.
void unlike_replicas_share_by_their_speed() {
  const Tokens prompts{10};
  const Tokens answers{20};
  const Schedule burst = arriving(std::vector<std::int64_t>(4000, 0), 1);
  const auto rate = [&](const std::vector<double>& factors) {
    SimulatedSystem system = system_of(static_cast<int>(factors.size()));
    system.step_factors = factors;
    return 4000.0 / static_cast<double>(
                        simulate(burst, system, test_of(prompts, answers)).end_ns);
  };
  CHECK(rate({1, 4}) > 0.98 * (rate({1}) + rate({4})));
  CHECK(rate({1, 1, 2}) > 0.98 * (2 * rate({1}) + rate({2})));
}

void invalid_arguments_are_refused() {
  const Tokens prompts{5, 200};
  const Tokens answers{2, 2};
  const auto refuses = [&](const Schedule& schedule, const SimulatedSystem& system,
                           const Tokens& lengths) {
    try {
      simulate(schedule, system, test_of(prompts, lengths));
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  };
  SimulatedSystem system = system_of(1);
  CHECK(refuses(arriving({0}, 1), system, answers));  // 202 tokens in 100
  system.limits.max_model_len = 300;
  CHECK(!refuses(arriving({0}, 1), system, answers));
  CHECK(refuses(arriving({1, 0}, 1), system, answers));
  CHECK(refuses(arriving({0, 1, 2}, 3), system, answers));
  CHECK(refuses(arriving({0}, 1), system, {2}));
  CHECK(refuses(arriving({0}, 1), system, {2, 0}));
  for (auto change : std::vector<void (*)(SimulatedSystem&)>{
           [](SimulatedSystem& s) { s.num_replicas = 0; },
           [](SimulatedSystem& s) { s.credit = 0; },
           [](SimulatedSystem& s) { s.limits.max_num_seqs = 0; },
           [](SimulatedSystem& s) { s.limits.max_num_batched_tokens = 3; },
           [](SimulatedSystem& s) { s.service.base_us = -1; },
           [](SimulatedSystem& s) { s.service.hiccup_probability = 1.5; },
           [](SimulatedSystem& s) { s.service.pad_to = 0; },
           [](SimulatedSystem& s) { s.step_factors = {1, 1}; },
           [](SimulatedSystem& s) { s.step_factors = {0}; },
           [](SimulatedSystem& s) { s.step_factors = {INFINITY}; }}) {
    SimulatedSystem changed = system;
    change(changed);
    CHECK(refuses(arriving({0}, 1), changed, answers));
  }
}

}  // namespace

int main() {
  times_are_those_of_the_service_model();
  an_arrival_at_a_steps_end_joins_the_next();
  laws_of_conservation_hold();
  each_replica_has_its_own_noise();
  a_light_load_reaches_every_replica();
  a_slow_replica_takes_longer_for_a_step();
  unlike_replicas_share_by_their_speed();
  invalid_arguments_are_refused();
  std::puts("simulation_test: passed");
}
