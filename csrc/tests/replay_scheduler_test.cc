// The service model in virtual time: no sockets, no clock.

#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "fault.h"
#include "scheduler.h"
#include "service_model.h"

namespace {

using replay::FinishReason;
using replay::Limits;
using replay::Output;
using replay::Request;
using replay::Scheduler;
using replay::ServiceModel;
using replay::Step;

constexpr Limits kLimits{.max_num_seqs = 2, .max_model_len = 100, .max_num_batched_tokens = 8};
constexpr ServiceModel kModel{
    .base_us = 100, .per_sequence_us = 10, .per_prefill_token_us = 1, .seed = 7};

Request request(std::string id, std::vector<std::uint32_t> prompt, std::uint32_t num_tokens) {
  return {.id = std::move(id),
          .prompt = std::move(prompt),
          .min_tokens = num_tokens,
          .max_tokens = num_tokens};
}

// "a" for a token of request a, "a!" for its last.
std::string run_step(Scheduler& scheduler, Step* step = nullptr) {
  const Step begun = scheduler.begin_step();
  if (step != nullptr) *step = begun;
  std::string text;
  for (const Output& output : scheduler.end_step()) {
    text += output.request_id;
    if (output.finish_reason != FinishReason::kNone) text += "!";
  }
  return text;
}

void a_step_takes_its_base_sequences_and_prefill() {
  CHECK(kModel.step_ns({}) == 100'000);
  CHECK(kModel.step_ns({3}) == 130'000);
  CHECK(kModel.step_ns({3, 50}) == 180'000);
  CHECK(kModel.step_ns({3, 50, 1'000'000}) == 180'000);
  CHECK(ServiceModel{}.step_ns({1000, 1000, 1000}) == 0);
}

void a_step_reads_the_context_of_its_sequences() {
  ServiceModel model = kModel;
  model.per_context_token_us = 0.5;
  CHECK(model.step_ns({3, 0, 1000}) == 630'000);
  Scheduler scheduler(kLimits, model);
  scheduler.add(request("a", {1, 2, 3}, 3));
  Step step;
  run_step(scheduler, &step);
  CHECK(step.num_context_tokens == 0);
  scheduler.add(request("b", {1, 2, 3, 4, 5, 6, 7, 8, 9}, 2));  // 7 of its 9 tokens fit
  run_step(scheduler, &step);
  CHECK(step.num_context_tokens == 3 + 1);
  run_step(scheduler, &step);
  CHECK(step.num_context_tokens == 3 + 2);
  run_step(scheduler, &step);
  CHECK(step.num_context_tokens == 9 + 1);
  CHECK(step.duration_ns == 115'000);
}

void decodes_are_padded_to_a_multiple() {
  ServiceModel model = kModel;
  model.pad_to = 8;
  CHECK(model.step_ns({0}) == 100'000);
  CHECK(model.step_ns({1}) == 180'000);
  CHECK(model.step_ns({8}) == 180'000);
  CHECK(model.step_ns({9}) == 260'000);
}

void noise_has_its_median_spread_and_seed() {
  ServiceModel model;
  model.noise = 0.1;
  model.seed = 3;
  replay::Jitter jitter(model);
  replay::Jitter again(model);
  model.seed = 4;
  replay::Jitter other(model);
  constexpr int kNumSteps = 100'000;
  double sum = 0;
  double sum_of_squares = 0;
  int num_equal = 0;
  for (int i = 0; i < kNumSteps; ++i) {
    const std::int64_t ns = jitter.next(1'000'000);
    CHECK(ns == again.next(1'000'000));
    num_equal += ns == other.next(1'000'000);
    const double log = std::log(static_cast<double>(ns) / 1e6);
    sum += log;
    sum_of_squares += log * log;
  }
  CHECK(num_equal < 100);
  CHECK(std::abs(sum / kNumSteps) < 0.002);  // 6 standard errors
  CHECK(std::abs(std::sqrt(sum_of_squares / kNumSteps) - 0.1) < 0.002);
}

void hiccups_are_as_rare_as_asked() {
  ServiceModel model;
  model.hiccup_probability = 0.01;
  model.hiccup_us = 50;
  replay::Jitter jitter(model);
  int num_hiccups = 0;
  for (int i = 0; i < 100'000; ++i) {
    const std::int64_t ns = jitter.next(1000);
    CHECK(ns == 1000 || ns == 51'000);
    num_hiccups += ns != 1000;
  }
  CHECK(num_hiccups > 800 && num_hiccups < 1200);
}

void answer_lengths_are_repeatable_and_uniform() {
  std::map<std::uint32_t, int> histogram;
  int num_changed = 0;
  ServiceModel other = kModel;
  other.seed = 8;
  for (std::uint32_t token = 0; token < 10'000; ++token) {
    const std::vector<std::uint32_t> prompt{token, 1, 2};
    const std::uint32_t length = kModel.answer_length(prompt, 5, 14);
    CHECK(length == kModel.answer_length(prompt, 5, 14));
    num_changed += length != other.answer_length(prompt, 5, 14);
    ++histogram[length];
  }
  CHECK(histogram.begin()->first == 5 && histogram.rbegin()->first == 14);
  for (const auto& [length, count] : histogram) CHECK(count > 850 && count < 1150);
  CHECK(num_changed > 8'500);
  constexpr auto kMost = std::numeric_limits<std::uint32_t>::max();
  CHECK(kModel.answer_length({}, 1, kMost) >= 1);
}

void prefill_gets_the_token_budget_left_by_decodes() {
  Scheduler scheduler(kLimits, kModel);
  scheduler.add(request("a", {1, 2, 3}, 3));
  Step step;
  CHECK(run_step(scheduler, &step) == "a");
  CHECK(step.num_decoding == 0 && step.num_prefill_tokens == 3);
  CHECK(step.duration_ns == 103'000);

  scheduler.add(request("b", {1, 2, 3, 4, 5, 6, 7, 8, 9}, 1));
  CHECK(run_step(scheduler, &step) == "a");
  CHECK(step.num_decoding == 1 && step.num_prefill_tokens == 7);
  CHECK(scheduler.stats().kv_cache_usage == (3 + 1 + 7) / 200.0);
  CHECK(run_step(scheduler, &step) == "a!b!");
  CHECK(step.num_decoding == 1 && step.num_prefill_tokens == 2);
  CHECK(!scheduler.has_work());
  CHECK(scheduler.stats().kv_cache_usage == 0);
}

void waiting_requests_are_admitted_in_order() {
  Scheduler scheduler(kLimits, kModel);
  scheduler.add(request("a", {1}, 2));
  scheduler.add(request("b", {1}, 1));
  scheduler.add(request("c", {1}, 1));
  scheduler.add(request("d", {1}, 1));
  CHECK(scheduler.stats().num_waiting == 4);
  CHECK(run_step(scheduler) == "ab!");
  CHECK(scheduler.stats().num_running == 1 && scheduler.stats().num_waiting == 2);
  CHECK(run_step(scheduler) == "a!c!");
  CHECK(run_step(scheduler) == "d!");
}

void an_abort_during_a_step_drops_its_output() {
  Scheduler scheduler(kLimits, kModel);
  for (const char* id : {"a", "b", "c"}) scheduler.add(request(id, {1}, 5));
  scheduler.begin_step();
  scheduler.abort("a");
  scheduler.abort("c");
  scheduler.abort("never seen");
  CHECK(scheduler.end_step().size() == 1);
  CHECK(scheduler.stats().num_running == 1 && scheduler.stats().num_waiting == 0);
  scheduler.abort("b");
  CHECK(!scheduler.has_work());
  CHECK(scheduler.stats().kv_cache_usage == 0);
  scheduler.add(request("a", {1}, 1));
  CHECK(run_step(scheduler) == "a!");
}

void an_id_is_used_by_one_request() {
  Scheduler scheduler(kLimits, kModel);
  scheduler.add(request("a", {1}, 1));
  try {
    scheduler.add(request("a", {1}, 1));
    CHECK(false && "accepted a second request with the same id");
  } catch (const std::invalid_argument&) {
  }
  CHECK(run_step(scheduler) == "a!");
  scheduler.add(request("a", {1}, 1));
}

void outputs_have_the_reason_an_answer_ended() {
  Scheduler scheduler(kLimits, ServiceModel{});
  int num_stopped = 0;
  for (std::uint32_t token = 0; token < 100; ++token) {
    scheduler.add({.id = "a", .prompt = {token}, .min_tokens = 1, .max_tokens = 4});
    int num_tokens = 0;
    FinishReason reason = FinishReason::kNone;
    while (scheduler.has_work()) {
      scheduler.begin_step();
      for (const Output& output : scheduler.end_step()) {
        CHECK(output.token == token && output.is_first == (num_tokens == 0));
        ++num_tokens;
        reason = output.finish_reason;
      }
    }
    CHECK(reason == (num_tokens == 4 ? FinishReason::kLength : FinishReason::kStop));
    num_stopped += reason == FinishReason::kStop;
  }
  CHECK(num_stopped > 50 && num_stopped < 100);
}

// A closed loop of 20 requests over 2 slots: every request ends and the KV cache is empty.
void a_run_in_virtual_time_is_repeatable() {
  const auto run = [] {
    Scheduler scheduler(kLimits, kModel);
    std::map<std::string, std::int64_t, std::less<>> ended_ns;
    for (std::uint32_t i = 0; i < 20; ++i) {
      scheduler.add({.id = "request " + std::to_string(i),
                     .prompt = std::vector<std::uint32_t>(1 + i, i),
                     .min_tokens = 1,
                     .max_tokens = 30});
    }
    std::int64_t now_ns = 0;
    while (scheduler.has_work()) {
      now_ns += scheduler.begin_step().duration_ns;
      for (const Output& output : scheduler.end_step()) {
        if (output.finish_reason == FinishReason::kNone) continue;
        CHECK(ended_ns.emplace(output.request_id, now_ns).second);
      }
    }
    CHECK(ended_ns.size() == 20);
    CHECK(scheduler.stats().kv_cache_usage == 0);
    return ended_ns;
  };
  CHECK(run() == run());
}

void faults_are_parsed_and_happen_once() {
  replay::FaultPlan faults({replay::parse_fault("die@3"), replay::parse_fault("slow@2:2.5")});
  CHECK(!faults.take(replay::FaultKind::kDie, 2));
  CHECK(faults.take(replay::FaultKind::kDie, 4));
  CHECK(!faults.take(replay::FaultKind::kDie, 5));
  CHECK(!faults.take(replay::FaultKind::kDead, 5));
  CHECK(faults.step_factor(1) == 1 && faults.step_factor(2) == 2.5);
  for (const char* bad : {"", "die", "die@", "die@x", "die@-1", "die@1:2", "slow@1", "slow@1:x",
                          "die-loading@1", "error@0", "explode@1"}) {
    try {
      replay::parse_fault(bad);
      CHECK(false && "accepted an invalid fault");
    } catch (const std::invalid_argument&) {
    }
  }
}

}  // namespace

int main() {
  a_step_takes_its_base_sequences_and_prefill();
  a_step_reads_the_context_of_its_sequences();
  decodes_are_padded_to_a_multiple();
  noise_has_its_median_spread_and_seed();
  hiccups_are_as_rare_as_asked();
  answer_lengths_are_repeatable_and_uniform();
  prefill_gets_the_token_budget_left_by_decodes();
  waiting_requests_are_admitted_in_order();
  an_abort_during_a_step_drops_its_output();
  an_id_is_used_by_one_request();
  outputs_have_the_reason_an_answer_ended();
  a_run_in_virtual_time_is_repeatable();
  faults_are_parsed_and_happen_once();
  std::puts("replay_scheduler_test: passed");
}
