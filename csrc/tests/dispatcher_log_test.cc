// What the dispatcher records with real replay engines: samples, steps, samples over a limit.
#include "../dispatcher.h"

#include <cstdlib>
#include <functional>
#include <map>
#include <numeric>

#include "../generate.h"
#include "engine_process.h"
#include "strict_sink.h"

namespace {

void every_completed_sample_is_recorded_with_its_times() {
  System system(2);
  sut::generate(*system.dispatcher, {7}, 0, 60);  // dropped by reset_stats()
  system.dispatcher->reset_stats();
  StrictSink sink(*system.dispatcher);
  sink.expected = 200;
  system.dispatcher->issue(samples(200), sink);
  while (!system.dispatcher->wait([&] { return sink.done(); }, 0.001)) {
    const auto part = system.dispatcher->samples();
    CHECK(part.completed_ns.size() == part.sample_index.size());
  }
  const auto s = system.dispatcher->stats();
  const auto columns = system.dispatcher->samples();
  CHECK(columns.sample_index.size() == 200);
  std::map<std::int64_t, std::int64_t> completed;  // by replica
  std::map<std::int64_t, int> times;               // by sample
  std::vector<std::int64_t> ttft_ns;
  for (std::size_t i = 0; i < 200; ++i) {
    const std::int64_t sample = columns.sample_index[i];
    ++completed[columns.replica[i]];
    ++times[sample];
    CHECK(columns.prompt_tokens[i] ==
          static_cast<std::int64_t>(prompt_of(static_cast<std::size_t>(sample)).size()));
    CHECK(columns.output_tokens[i] == static_cast<std::int64_t>(kMaxTokens));
    CHECK(0 <= columns.issued_ns[i] && columns.issued_ns[i] <= columns.admitted_ns[i]);
    CHECK(columns.admitted_ns[i] < columns.first_token_ns[i]);
    CHECK(columns.first_token_ns[i] < columns.completed_ns[i]);
    CHECK(i == 0 || columns.completed_ns[i - 1] <= columns.completed_ns[i]);
    CHECK(columns.completed_ns[i] <= s.elapsed_ns);
    ttft_ns.push_back(columns.first_token_ns[i] - columns.issued_ns[i]);
  }
  for (const auto& replica : s.replicas) CHECK(completed[replica.index] == replica.completed);
  for (std::int64_t sample = 0; sample < 100; ++sample) CHECK(times[sample] == 2);
  CHECK(sut::quantiles_of(ttft_ns) == s.ttft_ns);
  const auto live = system.dispatcher->live_stats();
  CHECK(live.completed == 200 && live.ttft_ns.back() == s.ttft_ns.back());
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(128 * std::abs(live.ttft_ns[i].second - s.ttft_ns[i].second) <= s.ttft_ns[i].second);
    CHECK(128 * std::abs(live.tpot_ns[i].second - s.tpot_ns[i].second) <= s.tpot_ns[i].second);
  }
}

constexpr std::int64_t kNsPerMs = 1'000'000;

void wait_until(const std::function<bool()>& condition) {
  for (int i = 0; i < 6000 && !condition(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(condition());
}

std::vector<std::size_t> first_samples(std::size_t count) {
  std::vector<std::size_t> indices(count);
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

// Every complete sample is counted by its own times. The limit on TTFT is the median of the samples
// before: on a busy machine all can be over it, or none.
void counts_samples_over_each_limit() {
  System system(1, {"--step-base-us", "500"});
  sut::Dispatcher& dispatcher = *system.dispatcher;
  sut::generate(dispatcher, first_samples(100), 0, 60);
  std::int64_t over = 0;
  for (int tries = 0; over == 0 || over == 100; ++tries) {
    CHECK(tries < 50);
    const std::int64_t limit_ns = dispatcher.stats().ttft_ns[0].second;
    dispatcher.reset_stats(sut::LatencyLimits{limit_ns, 0});
    sut::generate(dispatcher, first_samples(100), 0, 60);
    const sut::SampleColumns columns = dispatcher.samples();
    over = 0;
    for (std::size_t i = 0; i < 100; ++i)
      over += columns.first_token_ns[i] - columns.issued_ns[i] > limit_ns;
    CHECK(dispatcher.num_over().ttft == over && dispatcher.num_over().tpot == 100);
  }
  dispatcher.reset_stats(sut::LatencyLimits{sut::kNoLimit, 60'000'000'000});
  sut::generate(dispatcher, first_samples(100), 0, 60);
  CHECK(dispatcher.num_over().ttft == 0 && dispatcher.num_over().tpot == 0);
}

// A sample without a first token is over once it has waited for longer than the limit, in the
// queue and at a replica, and stays counted once.
void counts_late_samples_before_they_are_answered() {
  System system(1, {"--fault", "stall@0"});
  sut::Dispatcher& dispatcher = *system.dispatcher;
  dispatcher.set_credit(0, 2);
  dispatcher.reset_stats(sut::LatencyLimits{400 * kNsPerMs, 400 * kNsPerMs});
  StrictSink sink(dispatcher);
  const std::int64_t issued_ns = sut::now_ns();
  dispatcher.issue(samples(5), sink);
  wait_until([&] { return dispatcher.num_over().ttft > 0; });
  CHECK(sut::now_ns() - issued_ns > 400 * kNsPerMs);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));  // two more looks at them
  CHECK(dispatcher.num_over().ttft == 5 && dispatcher.num_over().tpot == 0);
  dispatcher.withdraw_queued();
  wait_until([&] { return dispatcher.stats().withdrawn > 0; });
  const sut::Snapshot s = dispatcher.stats();
  CHECK(s.withdrawn == 3 && s.queued == 0 && s.admitted == 2 && s.issued == 5);
  CHECK(dispatcher.num_over().ttft == 5);
  CHECK(!dispatcher.is_drained());  // two are in flight
  dispatcher.close();  // before the sink ends
}

// Twelve tokens at most, so at most eleven gaps: a sample with two tokens that has run for more
// than eleven times the limit is over.
void counts_a_running_sample_that_cannot_meet_its_tpot() {
  System system(1, {"--step-base-us", "20000", "--fault", "stall@1"});
  sut::Dispatcher& dispatcher = *system.dispatcher;
  dispatcher.reset_stats(sut::LatencyLimits{sut::kNoLimit, 200 * kNsPerMs});
  StrictSink sink(dispatcher);
  dispatcher.issue(samples(1), sink);
  wait_until([&] { return dispatcher.stats().first_tokens == 1; });
  const std::int64_t issued_ns = sut::now_ns();
  const std::vector<sut::Sample> second{{1, 1}};
  dispatcher.issue(second, sink);  // has some tokens when the first sample's end stalls it
  wait_until([&] { return dispatcher.num_over().tpot > 0; });
  CHECK(sut::now_ns() - issued_ns > 11 * 200 * kNsPerMs);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  CHECK(dispatcher.num_over().tpot == 1 && dispatcher.stats().completed == 1);
  dispatcher.close();  // before the sink ends
}

void steps_account_for_every_token() {
  System system(2);
  sut::generate(*system.dispatcher, {1}, 0, 60);
  CHECK(system.dispatcher->steps().replica.empty());  // off until asked for
  system.dispatcher->log_steps(true);
  system.dispatcher->reset_stats();
  std::vector<std::size_t> all(100);
  std::iota(all.begin(), all.end(), std::size_t{0});
  sut::generate(*system.dispatcher, all, sut::Dispatcher::kAnyReplica, 60);
  const sut::StepLogColumns steps = system.dispatcher->steps();
  std::int64_t prompts = 0, prompt_tokens = 0, decoded = 0;
  std::map<std::int64_t, std::size_t> last;  // of each replica
  for (std::size_t i = 0; i < steps.replica.size(); ++i) {
    prompts += steps.num_prompts[i];
    prompt_tokens += steps.prompt_tokens[i];
    decoded += steps.num_decoding[i];
    CHECK(steps.num_decoding[i] + steps.num_prompts[i] > 0);
    // At most a prompt of 7 tokens and an answer without its last token.
    CHECK(steps.context_tokens[i] >= 4 * steps.num_decoding[i]);
    CHECK(steps.context_tokens[i] <=
          (7 + static_cast<std::int64_t>(kMaxTokens) - 1) * steps.num_decoding[i]);
    CHECK(steps.received_ns[i] > 0 && steps.engine_ns[i] > 0);
    if (const auto found = last.find(steps.replica[i]); found != last.end()) {
      CHECK(steps.received_ns[found->second] <= steps.received_ns[i]);
      CHECK(steps.engine_ns[found->second] <= steps.engine_ns[i]);
    }
    last[steps.replica[i]] = i;
  }
  const sut::Snapshot s = system.dispatcher->stats();
  CHECK(last.size() == 2 && prompts == 100 && prompt_tokens == s.prompt_tokens);
  CHECK(decoded == 100 * (static_cast<std::int64_t>(kMaxTokens) - 1));
  system.dispatcher->reset_stats();
  CHECK(system.dispatcher->steps().replica.empty());
  system.dispatcher->log_steps(false);
  sut::generate(*system.dispatcher, {1}, 0, 60);
  CHECK(system.dispatcher->steps().replica.empty());
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  replay_engine_path = argv[1];
  every_completed_sample_is_recorded_with_its_times();
  steps_account_for_every_token();
  counts_samples_over_each_limit();
  counts_late_samples_before_they_are_answered();
  counts_a_running_sample_that_cannot_meet_its_tpot();
}
