// The dispatcher continues without replicas that are lost. Whatever is lost when: each sample
// completes once, with its whole answer, after one report of its first token, on one thread.
#include <csignal>
#include <chrono>
#include <functional>
#include <random>
#include <utility>

#include "../generate.h"
#include "answer_sink.h"

namespace {

constexpr const char* kStepUs = "1000";

void the_others_finish_what_a_lost_replica_had(const std::string& fault, const std::string& code) {
  sut::Dispatcher::Options options = kOptions;
  if (code == "stall") options.stall_deadline_s = 3;
  System system(3, options, {"--step-base-us", kStepUs}, {"--fault", fault}, 1);
  system.dispatcher->continue_after_loss(true);
  AnswerSink sink(*system.dispatcher);
  sink.expect(300);
  system.dispatcher->issue(samples(300), sink);
  CHECK(system.dispatcher->wait([&] { return sink.done(); }, 60));
  CHECK(!system.dispatcher->failure());
  check_counts(*system.dispatcher, 300);
  const auto losses = system.dispatcher->losses();
  CHECK(losses.size() == 1);
  if (losses[0].why.code != code)
    std::fprintf(stderr, "%s gave %s\n", fault.c_str(), losses[0].why.code.c_str());
  CHECK(losses[0].why.code == code && losses[0].why.replica == 1);
  CHECK(losses[0].samples_restarted > 0 && losses[0].samples_restarted <= 10);
  CHECK(losses[0].lost_ns > 0);
  const auto lost = system.dispatcher->stats().replicas[1];
  CHECK(lost.running == 0 && lost.waiting == 0 && lost.kv_cache_usage == 0);
  // The dispatcher stays usable, without the lost replica.
  system.dispatcher->reset_stats();
  CHECK(system.dispatcher->losses()[0].lost_ns < 0);
  CHECK(sut::generate(*system.dispatcher, {1, 2, 3}, sut::Dispatcher::kAnyReplica, 60).size() == 3);
  CHECK(system.dispatcher->stats().replicas[1].admitted == 0);
}

// Long steps: at the time of the loss every sample in flight has some of its tokens.
void a_first_token_is_not_reported_again() {
  System system(2, kOptions, {"--step-base-us", "20000"});
  system.dispatcher->continue_after_loss(true);
  AnswerSink sink(*system.dispatcher);
  sink.expect(8);
  system.dispatcher->issue(samples(8), sink);
  while (sink.num_first_tokens() < 8) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  system.engines[0]->kill();
  CHECK(system.dispatcher->wait([&] { return sink.done(); }, 60));
  check_counts(*system.dispatcher, 8);
  const auto losses = system.dispatcher->losses();
  CHECK(losses.size() == 1 && losses[0].samples_restarted == 4 && losses[0].tokens_lost >= 4);
}

void a_lost_replica_that_resumes_is_ignored() {
  sut::Dispatcher::Options options = kOptions;
  options.stall_deadline_s = 3;
  System system(2, options, {"--step-base-us", kStepUs});
  system.dispatcher->continue_after_loss(true);
  AnswerSink sink(*system.dispatcher);
  sink.expect(20);
  system.engines[1]->send(SIGSTOP);
  system.dispatcher->issue(samples(20), sink);
  CHECK(system.dispatcher->wait([&] { return sink.done(); }, 60));
  CHECK(system.dispatcher->losses().size() == 1);
  system.engines[1]->send(SIGCONT);
  for (int i = 0; i < 50; ++i) {  // meanwhile the answers of the lost replica arrive
    CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK(!system.dispatcher->failure());
  CHECK(system.dispatcher->stats().replicas[1].completed == 0);
}

void the_last_replica_is_a_failure() {
  System system(2, kOptions, {"--step-base-us", kStepUs});
  system.dispatcher->continue_after_loss(true);
  StrictSink sink(*system.dispatcher);
  sink.expected = 100'000;
  system.dispatcher->issue(samples(100'000), sink);
  system.dispatcher->lose({"engine_died", "gone", 1});
  system.dispatcher->lose({"engine_died", "gone again", 1});
  // A loss that a send notices may otherwise come first.
  while (system.dispatcher->losses().empty())
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  system.engines[0]->kill();
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 60));
  const auto failure = system.dispatcher->failure();
  CHECK(failure && failure->code == "connection_lost" && failure->replica == 0);
  CHECK(system.dispatcher->stopped());
  CHECK(system.dispatcher->losses().size() == 1);
  CHECK(system.dispatcher->losses()[0].why.message == "gone");
  const auto s = system.dispatcher->stats();
  CHECK(s.completed + s.failed == s.issued);
}

void samples_for_a_lost_replica_alone_are_a_failure() {
  System system(2, kOptions, {"--step-base-us", "20000"});
  system.dispatcher->continue_after_loss(true);
  StrictSink sink(*system.dispatcher);
  sink.expected = 20;
  system.dispatcher->issue(samples(20), sink, 1);
  system.engines[1]->kill();
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 60));
  CHECK(system.dispatcher->failure()->replica == 1 && system.dispatcher->losses().empty());
}

void samples_for_a_replica_that_is_lost_are_a_failure() {
  System system(2);
  system.dispatcher->continue_after_loss(true);
  system.dispatcher->lose({"engine_died", "gone", 1});
  while (system.dispatcher->losses().empty())
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  StrictSink sink(*system.dispatcher);
  sink.expected = 3;
  system.dispatcher->issue(samples(3), sink, 1);
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 60));
  const auto failure = system.dispatcher->failure();
  CHECK(failure && failure->code == "engine_died" && failure->replica == 1);
  const auto s = system.dispatcher->stats();
  CHECK(s.failed == 3 && s.issued == 3);
}

// The I/O thread is blocked for longer than a stall: it has not read what the replicas sent.
void a_replica_that_was_not_read_is_not_lost() {
  class BlockingSink final : public sut::ResponseSink {
   public:
    explicit BlockingSink(sut::Dispatcher& dispatcher) : strict(dispatcher) {}
    void on_first_token(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
      if (!std::exchange(has_blocked_, true)) std::this_thread::sleep_for(std::chrono::seconds(4));
      strict.on_first_token(id, tokens);
    }
    void on_complete(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
      strict.on_complete(id, tokens);
    }
    StrictSink strict;

   private:
    bool has_blocked_ = false;
  };
  sut::Dispatcher::Options options = kOptions;
  options.stall_deadline_s = 3;
  System system(3, options, {"--step-base-us", "100000"});
  system.dispatcher->continue_after_loss(true);
  BlockingSink sink(*system.dispatcher);
  sink.strict.expected = 30;
  system.dispatcher->issue(samples(30), sink);
  CHECK(system.dispatcher->wait([&] { return sink.strict.done(); }, 60));
  CHECK(system.dispatcher->losses().empty() && !system.dispatcher->failure());
}

void a_loss_is_a_failure_by_default() {
  System system(2);
  system.dispatcher->lose({"engine_died", "gone", 1});
  CHECK(!system.dispatcher->wait([] { return false; }, 20));
  CHECK(system.dispatcher->failure()->code == "engine_died");
}

void restarted_samples_are_not_withdrawn() {
  System system(2, kOptions, {"--step-base-us", "20000"});
  system.dispatcher->continue_after_loss(true);
  AnswerSink sink(*system.dispatcher);
  system.dispatcher->issue(samples(100), sink);
  while (sink.num_first_tokens() < 16) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  system.dispatcher->lose({"engine_died", "gone", 1});
  system.dispatcher->withdraw_queued();
  while (!system.dispatcher->is_drained())
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const auto s = system.dispatcher->stats();
  CHECK(s.completed + s.withdrawn == s.issued && s.first_tokens == s.completed);
  CHECK(s.withdrawn > 0 && s.completed >= 16);
}

// Everything in flight is at the lost replica: nothing is, between its loss and the restart.
void a_loss_while_draining_is_waited_for() {
  sut::Dispatcher::Options options = kOptions;
  options.stall_deadline_s = 3;
  System system(2, options, {"--step-base-us", kStepUs});
  system.dispatcher->continue_after_loss(true);
  AnswerSink sink(*system.dispatcher);
  system.engines[1]->send(SIGSTOP);
  system.dispatcher->issue(samples(20), sink);
  while (system.dispatcher->stats().admitted < 20)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  system.dispatcher->withdraw_queued();
  while (!system.dispatcher->is_drained())
    std::this_thread::sleep_for(std::chrono::microseconds(10));
  const auto s = system.dispatcher->stats();
  CHECK(s.completed + s.withdrawn == s.issued);
  CHECK(system.dispatcher->losses().size() == 1);
}

// Kills, stops or reports as lost all replicas but one, at random moments under load.
void every_sample_completes_once(unsigned seed) {
  std::mt19937 random(seed);
  const auto number = [&](int least, int most) {
    return std::uniform_int_distribution<int>(least, most)(random);
  };
  const int num_replicas = number(2, 5);
  sut::Dispatcher::Options options = kOptions;
  options.stall_deadline_s = 3;
  System system(num_replicas, options, {"--step-base-us", std::to_string(number(100, 2'000))});
  for (int i = 0; i < num_replicas; ++i)
    system.dispatcher->set_credit(i, static_cast<std::size_t>(number(1, 20)));
  system.dispatcher->continue_after_loss(true);
  AnswerSink sink(*system.dispatcher);
  const int count = number(1'000, 3'000);
  sink.expect(count);
  std::thread issuer([&, batch_seed = random()] {
    std::mt19937 of_batches(static_cast<unsigned>(batch_seed));
    const std::vector<sut::Sample> all = samples(static_cast<std::size_t>(count));
    for (std::size_t begin = 0; begin < all.size();) {
      const std::size_t size = std::min<std::size_t>(1 + of_batches() % 100, all.size() - begin);
      system.dispatcher->issue(std::span(all).subspan(begin, size), sink);
      begin += size;
      std::this_thread::sleep_for(std::chrono::microseconds(of_batches() % 5'000));
    }
  });
  const int survivor = number(0, num_replicas - 1);
  std::vector<int> stopped;
  for (int i = 0; i < num_replicas; ++i) {
    if (i == survivor) continue;
    std::this_thread::sleep_for(std::chrono::microseconds(number(0, 60'000)));
    EngineProcess& engine = *system.engines[static_cast<std::size_t>(i)];
    switch (number(0, 3)) {
      case 0:
        system.dispatcher->lose({"engine_died", "", i});
        break;
      case 1:
        engine.send(SIGSTOP);
        stopped.push_back(i);
        break;
      default:
        engine.kill();
    }
    if (!stopped.empty() && number(0, 1) == 0) {
      system.engines[static_cast<std::size_t>(stopped.back())]->send(SIGCONT);
      stopped.pop_back();
    }
  }
  issuer.join();
  const bool done = system.dispatcher->wait([&] { return sink.done(); }, 120);
  if (const auto failure = system.dispatcher->failure())
    std::fprintf(stderr, "%s: %s\n", failure->code.c_str(), failure->message.c_str());
  CHECK(done && !system.dispatcher->failure());
  check_counts(*system.dispatcher, count);
  for (const auto& loss : system.dispatcher->losses()) CHECK(loss.why.replica != survivor);
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2 || argc == 3);
  replay_engine_path = argv[1];
  if (argc == 3) {  // one seed, to repeat a failure
    every_sample_completes_once(static_cast<unsigned>(std::stoul(argv[2])));
    return 0;
  }
  the_others_finish_what_a_lost_replica_had("die@3", "connection_lost");
  the_others_finish_what_a_lost_replica_had("dead@3", "engine_dead");
  the_others_finish_what_a_lost_replica_had("stall@3", "stall");
  the_others_finish_what_a_lost_replica_had("reset-input@3", "connection_lost");
  the_others_finish_what_a_lost_replica_had("reset-output@3", "connection_lost");
  a_first_token_is_not_reported_again();
  a_lost_replica_that_resumes_is_ignored();
  the_last_replica_is_a_failure();
  samples_for_a_lost_replica_alone_are_a_failure();
  samples_for_a_replica_that_is_lost_are_a_failure();
  a_replica_that_was_not_read_is_not_lost();
  a_loss_is_a_failure_by_default();
  restarted_samples_are_not_withdrawn();
  a_loss_while_draining_is_waited_for();
  for (unsigned seed = 1; seed <= 3; ++seed) every_sample_completes_once(seed);
  const unsigned seed = std::random_device{}();
  std::printf("seed %u; to repeat it: replica_loss_test REPLAY_ENGINE %u\n", seed, seed);
  std::fflush(stdout);
  every_sample_completes_once(seed);
}
