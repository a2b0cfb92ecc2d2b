// The dispatcher with real replay engines: answers, balance, shutdown.
#include "../dispatcher.h"

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

// Also a sample that is issued while the thread takes earlier ones, right before the withdrawal.
void nothing_issued_before_a_withdrawal_is_left() {
  System system(1);
  sut::Dispatcher& dispatcher = *system.dispatcher;
  StrictSink sink(dispatcher);
  dispatcher.set_credit(0, 0);
  const std::vector<sut::Sample> many = samples(20'000);
  for (int pause_us = 0; pause_us < 200; ++pause_us) {
    dispatcher.reset_stats();
    dispatcher.issue(many, sink);
    const std::int64_t until = sut::now_ns() + 1'000 * pause_us;
    while (sut::now_ns() < until) {
    }
    dispatcher.issue(samples(1), sink);
    dispatcher.withdraw_queued();
    while (!dispatcher.is_drained()) std::this_thread::yield();
    CHECK(dispatcher.live_stats().withdrawn == 20'001);
  }
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
  a_pinned_sample_goes_to_its_replica();
  a_sample_waiting_for_its_replica_blocks_none();
  samples_waiting_for_their_replica_are_counted_as_failed();
  nothing_issued_before_a_withdrawal_is_left();
  the_clock_stops_with_the_dispatcher();
  a_light_load_reaches_every_replica();
  closing_while_samples_run_stops_everything();
  bad_arguments_are_refused();
}
