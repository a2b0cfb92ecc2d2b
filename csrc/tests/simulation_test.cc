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

namespace {

using sut::Schedule;
using sut::SimulatedSystem;
using sut::SimulatedTest;
using Tokens = std::vector<std::uint32_t>;

constexpr replay::ServiceModel kService{
    .base_us = 100, .per_sequence_us = 10, .per_prefill_token_us = 1};
constexpr replay::Limits kLimits{
    .max_num_seqs = 4, .max_model_len = 100, .max_num_batched_tokens = 16};

SimulatedSystem system_of(int num_replicas) { return {kService, kLimits, num_replicas, 5}; }

SimulatedTest test_of(const Tokens& prompts, const Tokens& answers) {
  return {.prompt_tokens = prompts, .output_tokens = answers, .log_steps = true};
}

// Queries for samples 0, 1, 2, ... in turn.
Schedule arriving(std::vector<std::int64_t> arrival_ns, std::size_t num_samples) {
  Schedule schedule{std::move(arrival_ns), {}};
  for (std::size_t i = 0; i < schedule.size(); ++i)
    schedule.sample_index.push_back(static_cast<std::int64_t>(i % num_samples));
  return schedule;
}

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

struct Load {
  Tokens prompts;
  Tokens answers;
  Schedule schedule;
};

Load heavy_load() {
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

std::int64_t num_ttft_over(const sut::SampleColumns& samples, std::int64_t limit_ns) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < samples.issued_ns.size(); ++i)
    count += samples.first_token_ns[i] - samples.issued_ns[i] > limit_ns;
  return count;
}

std::int64_t num_tpot_over(const sut::SampleColumns& samples, std::int64_t limit_ns) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < samples.issued_ns.size(); ++i) {
    const std::int64_t num_gaps = samples.output_tokens[i] - 1;
    const std::int64_t decode_ns = samples.completed_ns[i] - samples.first_token_ns[i];
    count += num_gaps > 0 && decode_ns / num_gaps > limit_ns;
  }
  return count;
}

void samples_over_a_limit_are_counted() {
  const Load load = heavy_load();
  const SimulatedSystem system = system_of(2);
  SimulatedTest test = test_of(load.prompts, load.answers);
  auto free = simulate(load.schedule, system, test);
  CHECK(free.num_ttft_over == 0 && free.num_tpot_over == 0 && free.num_over == 0);
  std::vector<std::int64_t> ttft;
  for (std::size_t i = 0; i < 400; ++i)
    ttft.push_back(free.samples.first_token_ns[i] - free.samples.issued_ns[i]);
  std::sort(ttft.begin(), ttft.end());
  for (const std::size_t rank : {0, 200, 350, 399}) {
    test.ttft_limit_ns = ttft[rank];
    const auto limited = simulate(load.schedule, system, test);
    CHECK(limited.num_ttft_over == num_ttft_over(free.samples, ttft[rank]));
    CHECK(limited.num_over == limited.num_ttft_over && !limited.stopped);
  }
  test.ttft_limit_ns.reset();
  test.tpot_limit_ns = 120'000;
  const std::int64_t num_over = num_tpot_over(free.samples, 120'000);
  CHECK(num_over > 10 && num_over < 390);
  CHECK(simulate(load.schedule, system, test).num_tpot_over == num_over);
  test.ttft_limit_ns = ttft[200];
  const auto both = simulate(load.schedule, system, test);
  CHECK(both.num_over >= std::max(both.num_ttft_over, both.num_tpot_over));
  CHECK(both.num_over < both.num_ttft_over + both.num_tpot_over);
}

void a_sample_exactly_at_a_limit_is_not_over() {
  const Tokens prompts{5};
  const Tokens answers{3};
  SimulatedTest test = test_of(prompts, answers);  // TTFT 105 us, then two steps of 110 us
  test.ttft_limit_ns = 105'000;
  test.tpot_limit_ns = 110'000;
  CHECK(simulate(arriving({0}, 1), system_of(1), test).num_over == 0);
  test.ttft_limit_ns = 104'999;
  CHECK(simulate(arriving({0}, 1), system_of(1), test).num_ttft_over == 1);
  test.tpot_limit_ns = 109'999;
  CHECK(simulate(arriving({0}, 1), system_of(1), test).num_tpot_over == 1);
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

// A queue that grows is known to be late before its samples are served.
void a_hopeless_test_stops_at_its_budget() {
  const Load load = heavy_load();
  SimulatedTest test = test_of(load.prompts, load.answers);
  test.ttft_limit_ns = 1'000'000;
  const auto whole = simulate(load.schedule, system_of(1), test);
  CHECK(whole.num_ttft_over > 300 && !whole.stopped);
  test.stop_over = whole.num_ttft_over;
  CHECK(!simulate(load.schedule, system_of(1), test).stopped);
  test.stop_over = 20;
  const auto stopped = simulate(load.schedule, system_of(1), test);
  CHECK(stopped.stopped && stopped.num_ttft_over > 20 && stopped.num_ttft_over < 30);
  CHECK(stopped.end_ns < whole.end_ns / 4);
  CHECK(num_ttft_over(stopped.samples, 1'000'000) < stopped.num_ttft_over);
}

void a_test_stops_at_its_time() {
  const Load load = heavy_load();
  SimulatedTest test = test_of(load.prompts, load.answers);
  const auto whole = simulate(load.schedule, system_of(1), test);
  test.stop_after_ns = whole.end_ns / 3;
  const auto stopped = simulate(load.schedule, system_of(1), test);
  CHECK(stopped.stopped && stopped.end_ns == *test.stop_after_ns);
  const std::size_t count = stopped.samples.completed_ns.size();
  CHECK(count > 0 && stopped.samples.completed_ns.back() <= stopped.end_ns);
  CHECK(whole.samples.completed_ns[count] > stopped.end_ns);
  CHECK(std::equal(stopped.samples.completed_ns.begin(), stopped.samples.completed_ns.end(),
                   whole.samples.completed_ns.begin()));
  test.stop_after_ns = whole.end_ns;
  CHECK(!simulate(load.schedule, system_of(1), test).stopped);
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
  samples_over_a_limit_are_counted();
  a_sample_exactly_at_a_limit_is_not_over();
  each_replica_has_its_own_noise();
  a_hopeless_test_stops_at_its_budget();
  a_test_stops_at_its_time();
  a_light_load_reaches_every_replica();
  a_slow_replica_takes_longer_for_a_step();
  unlike_replicas_share_by_their_speed();
  invalid_arguments_are_refused();
  std::puts("simulation_test: passed");
}
