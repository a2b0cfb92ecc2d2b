// The dispatcher with real replay engines: answers, balance, counts, shutdown.
#include "../dispatcher.h"

#include <functional>
#include <map>
#include <numeric>

#include "../generate.h"
#include "engine_process.h"
#include "strict_sink.h"

namespace {

void every_sample_gets_its_own_answer() {
  System system(2);
  std::vector<std::size_t> all(100);
  std::iota(all.begin(), all.end(), std::size_t{0});
  const auto answers = sut::generate(*system.dispatcher, all, sut::Dispatcher::kAnyReplica, 60);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::vector<int> prompt = prompt_of(i);
    CHECK(answers[i].size() == kMaxTokens);
    for (std::size_t n = 0; n < kMaxTokens; ++n) CHECK(answers[i][n] == prompt[n % prompt.size()]);
  }
}

void replicas_share_the_work_and_counts_agree() {
  System system(2);
  StrictSink sink(*system.dispatcher);
  sink.expected = 400;
  system.dispatcher->issue(samples(400), sink);
  while (!system.dispatcher->wait([&] { return sink.done(); }, 0.01)) {
    const auto s = system.dispatcher->stats();
    for (const auto& replica : s.replicas) CHECK(replica.in_flight <= 10);
    CHECK(!system.dispatcher->failure());
  }
  const auto s = system.dispatcher->stats();
  CHECK(s.issued == 400 && s.admitted == 400 && s.completed == 400 && s.first_tokens == 400);
  CHECK(s.queued == 0 && s.failed == 0);
  CHECK(s.output_tokens == 400 * static_cast<std::int64_t>(kMaxTokens));
  CHECK(s.ttft_ns.size() == 5 && s.tpot_ns.size() == 5);
  for (const auto& replica : s.replicas) CHECK(replica.completed > 100 && replica.busy_ns > 0);
  system.dispatcher->reset_stats();
  const auto fresh = system.dispatcher->stats();
  CHECK(fresh.issued == 0 && fresh.completed == 0 && fresh.ttft_ns.empty());
}

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

// Every complete sample is counted by its own times.
void counts_samples_over_each_limit() {
  System system(1, {"--step-base-us", "500"});
  sut::Dispatcher& dispatcher = *system.dispatcher;
  sut::generate(dispatcher, first_samples(100), 0, 60);
  const std::int64_t median_ns = dispatcher.stats().ttft_ns[0].second;
  dispatcher.reset_stats(sut::LatencyLimits{median_ns, 0});
  sut::generate(dispatcher, first_samples(100), 0, 60);
  const sut::SampleColumns columns = dispatcher.samples();
  std::int64_t over = 0;
  for (std::size_t i = 0; i < 100; ++i)
    over += columns.first_token_ns[i] - columns.issued_ns[i] > median_ns;
  CHECK(0 < over && over < 100);
  CHECK(dispatcher.num_over().ttft == over && dispatcher.num_over().tpot == 100);
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

void a_pinned_sample_goes_to_its_replica() {
  System system(2);
  sut::generate(*system.dispatcher, {1, 2, 3}, 1, 60);
  const auto s = system.dispatcher->stats();
  CHECK(s.replicas[0].completed == 0 && s.replicas[1].completed == 3);
}

void a_sample_waiting_for_its_replica_blocks_none() {
  System system(2);
  StrictSink sink(*system.dispatcher);
  sink.expected = 3;
  system.dispatcher->set_credit(0, 0);
  system.dispatcher->issue(samples(3), sink, 0);
  CHECK(sut::generate(*system.dispatcher, {5}, 1, 20).size() == 1);
  CHECK(system.dispatcher->stats().queued == 3);
  system.dispatcher->set_credit(0, 10);
  CHECK(system.dispatcher->wait([&] { return sink.done(); }, 20));
}

void samples_waiting_for_their_replica_are_counted_as_failed() {
  System system(2);
  StrictSink sink(*system.dispatcher);
  system.dispatcher->set_credit(0, 0);
  system.dispatcher->issue(samples(3), sink, 0);
  CHECK(sut::generate(*system.dispatcher, {5}, 1, 20).size() == 1);
  system.dispatcher->fail({"test", "", -1});
  CHECK(!system.dispatcher->wait([] { return false; }, 20) && system.dispatcher->stopped());
  const auto s = system.dispatcher->stats();
  CHECK(s.issued == 4 && s.completed == 1 && s.failed == 3 && s.queued == 0);
}

void the_clock_stops_with_the_dispatcher() {
  System system(1, {"--fault", "stall@3"});
  StrictSink sink(*system.dispatcher);
  system.dispatcher->issue(samples(20), sink);
  system.dispatcher->fail({"test", "", -1});
  CHECK(!system.dispatcher->wait([] { return false; }, 20) && system.dispatcher->stopped());
  const auto then = system.dispatcher->stats();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto later = system.dispatcher->stats();
  CHECK(later.elapsed_ns == then.elapsed_ns);
  CHECK(later.replicas[0].busy_ns == then.replicas[0].busy_ns);
}

void a_light_load_reaches_every_replica() {
  System system(3);
  for (std::size_t i = 0; i < 6; ++i)
    sut::generate(*system.dispatcher, {i}, sut::Dispatcher::kAnyReplica, 60);
  for (const auto& replica : system.dispatcher->stats().replicas) CHECK(replica.completed == 2);
}

void closing_while_samples_run_stops_everything() {
  System system(2);
  StrictSink sink(*system.dispatcher);
  sink.expected = 1'000'000;
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&, i] {
      while (!stop) {
        if (i == 0) system.dispatcher->stats();
        if (i == 1) system.dispatcher->failure();
      }
    });
  system.dispatcher->issue(samples(100'000), sink);
  std::thread closer([&] { system.dispatcher->close(); });
  system.dispatcher->close();
  closer.join();
  CHECK(system.dispatcher->stopped());
  stop = true;
  for (auto& thread : threads) thread.join();
}

void bad_arguments_are_refused() {
  System system(1);
  StrictSink sink(*system.dispatcher);
  const auto refuses = [](auto call) {
    try {
      call();
    } catch (const std::logic_error&) {
      return true;
    }
    return false;
  };
  CHECK(refuses([&] { sut::generate(*system.dispatcher, {100}, 0, 1); }));
  CHECK(refuses([&] { sut::generate(*system.dispatcher, {0}, 1, 1); }));
  CHECK(refuses([&] { sut::generate(*system.dispatcher, {0}, 0, -1); }));
  CHECK(system.dispatcher->stats().issued == 0);
  CHECK(refuses([&] { system.dispatcher->set_credit(3, 1); }));
  CHECK(refuses([&] {
    sink.expected = 1000;
    system.dispatcher->issue(samples(1000), sink);
    system.dispatcher->reset_stats();
  }));
  system.dispatcher->close();
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  replay_engine_path = argv[1];
  every_sample_gets_its_own_answer();
  replicas_share_the_work_and_counts_agree();
  every_completed_sample_is_recorded_with_its_times();
  steps_account_for_every_token();
  counts_samples_over_each_limit();
  counts_late_samples_before_they_are_answered();
  counts_a_running_sample_that_cannot_meet_its_tpot();
  a_pinned_sample_goes_to_its_replica();
  a_sample_waiting_for_its_replica_blocks_none();
  samples_waiting_for_their_replica_are_counted_as_failed();
  the_clock_stops_with_the_dispatcher();
  a_light_load_reaches_every_replica();
  closing_while_samples_run_stops_everything();
  bad_arguments_are_refused();
}
