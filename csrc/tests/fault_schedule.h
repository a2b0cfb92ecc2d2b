#pragma once

#include <signal.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../generate.h"
#include "../loadgen_test.h"
#include "engine_process.h"
#include "once_sink.h"
#include "replica_fault.h"

namespace fs = std::filesystem;
using Random = std::mt19937;

inline constexpr std::size_t kMaxReturned = 12;  // in a schedule
inline constexpr double kStallS = 5;
inline constexpr double kWaitS = 240;

inline int between(Random& random, int least, int most) {
  return std::uniform_int_distribution<int>(least, most)(random);
}
inline void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

struct Tally {
  std::int64_t schedules = 0, samples = 0, by_loadgen = 0, withdrawn = 0, dropped = 0;
  std::int64_t losses = 0, restarted = 0, rejoined = 0;
};

// LoadGen's logger has lost a thread's request under ThreadSanitizer, and the end of LoadGen's test
// then waits for it forever (Logger::StopLogging). loadgen_test runs LoadGen under it nevertheless.
#ifdef __SANITIZE_THREAD__
constexpr bool kWithLoadGen = false;
#else
constexpr bool kWithLoadGen = true;
#endif

// The replicas, what happens to each of them and when, and the work, all by a seed.
class Schedule {
 public:
  Schedule(unsigned seed, int num_samples, const fs::path& folder, Tally& tally)
      : random_(seed),
        num_samples_(num_samples),
        folder_(folder),
        tally_(tally),
        num_replicas_(between(random_, 2, 6)),
        survivor_(between(random_, 0, num_replicas_ - 1)),
        keys_(num_replicas_),
        links_(std::make_shared<sut::ReplicaLinks>("127.0.0.1", keys_.of_front_end(),
                                                   kMaxOutputBytes)) {
    start_engines();
    const sut::Dispatcher::Options options{kMaxTokens, kWaitS, kStallS};
    dispatcher_ = std::make_shared<sut::Dispatcher>(links_, make_store(kNumPrompts),
                                                    sut::WireLayout{}, options);
    CHECK(dispatcher_->wait_ready(120));
    for (int i = 0; i < num_replicas_; ++i)
      dispatcher_->set_credit(i, static_cast<std::size_t>(between(random_, 4, 64)));
    dispatcher_->continue_after_loss(true);
  }

  void run() {
    std::thread faults([this, seed = random_()] { inject(Random(static_cast<unsigned>(seed))); });
    for (int round = between(random_, 3, 5); round > 0; --round) {
      dispatcher_->reset_stats();
      switch (between(random_, 0, 3)) {
        case 0:
          issue_and_withdraw();
          break;
        case 1:
          if (kWithLoadGen) {
            run_loadgen(between(random_, 0, 1) == 0 ? "Offline" : "Server");
            break;
          }
          [[fallthrough]];
        default:
          issue_all();
      }
    }
    rounds_over_.store(true);
    faults.join();
    for (const sut::ReplicaLoss& loss : dispatcher_->losses()) {
      CHECK(loss.why.replica != survivor_);
      ++tally_.losses;
      tally_.rejoined += loss.rejoined_ns.has_value();
      tally_.restarted += loss.samples_restarted;
    }
    if (between(random_, 0, 3) == 0) issue_and_fail();
    ++tally_.schedules;
  }

 private:
  void start_engines() {
    const std::string step_us = std::to_string(between(random_, 0, 200));
    for (int i = 0; i < num_replicas_; ++i) {
      std::vector<std::string> options = {"--step-base-us", step_us, "--max-num-seqs",
                                          std::to_string(between(random_, 4, 64))};
      const Fault fault = kFaults[static_cast<std::size_t>(
          between(random_, 0, static_cast<int>(kFaults.size()) - 1))];
      moments_.push_back(between(random_, 0, num_samples_ / 2 / num_replicas_));
      faults_.push_back(i == survivor_ ? Fault::kNone : fault);
      if (const char* word = engine_fault(faults_.back()))
        options.insert(options.end(),
                       {"--fault", std::string(word) + "@" + std::to_string(moments_.back())});
      const auto index = static_cast<std::size_t>(i);
      engines_.push_back(std::make_unique<EngineProcess>(links_->handshake_endpoint(i),
                                                         keys_.of_engine(index), options));
    }
  }

  // Does to each replica what is due, once it was sent its number of samples.
  void inject(Random random) {
    std::vector<bool> done(faults_.size());
    while (!rounds_over_.load()) {
      for (int i = 0; i < num_replicas_; ++i) {
        const auto index = static_cast<std::size_t>(i);
        if (done[index] || dispatcher_->num_sent(i) < moments_[index]) continue;
        done[index] = true;
        EngineProcess& engine = *engines_[index];
        switch (faults_[index]) {
          case Fault::kKill:
            engine.kill();
            break;
          case Fault::kStop:
            engine.send(SIGSTOP);
            break;
          case Fault::kPause:
            engine.send(SIGSTOP);
            sleep_ms(between(random, 1, 500));
            engine.send(SIGCONT);
            break;
          case Fault::kReport:
            dispatcher_->lose({"engine_died", "", i});
            break;
          default:
            break;
        }
      }
      for (const sut::ReplicaLoss& loss : dispatcher_->losses()) {
        // What a lost replica still sends does not matter.
        engines_[static_cast<std::size_t>(loss.why.replica)]->send(SIGCONT);
        if (!loss.rejoined_ns && returned_.size() < kMaxReturned && between(random, 0, 3) == 0)
          bring_back(loss.why.replica, random);
      }
      sleep_ms(1);
    }
    for (const auto& engine : engines_) engine->send(SIGCONT);
  }

  // Starts an engine in its place, which may die at its warm-up, in the moment of its return or
  // later.
  void bring_back(int replica, Random& random) {
    const int end = between(random, 0, 5);
    std::vector<std::string> options = {"--step-base-us", "200"};
    if (end >= 3)
      options.insert(options.end(),
                     {"--fault", "die@" + std::to_string(end == 3 ? 2 : between(random, 5, 500))});
    returned_.push_back(std::make_unique<RestartedEngine>(options));
    RestartedEngine& engine = *returned_.back();
    try {
      sut::generate(*engine.dispatcher, {1, 2, 3, 4}, 0, kWaitS);
      if (end == 2) {
        engine.dispatcher->close();
        engine.process->kill();
      }
      dispatcher_->rejoin(replica, *engine.dispatcher);
      dispatcher_->set_credit(replica, static_cast<std::size_t>(between(random, 1, 64)));
    } catch (const sut::Stopped&) {
      CHECK(end == 3);
    }
  }

  // From two threads: most for any replica, some for the one that stays.
  void issue_all() {
    const auto count = static_cast<std::size_t>(num_samples_);
    OnceSink any(*dispatcher_, count, io_thread_), pinned(*dispatcher_, count / 10, io_thread_);
    std::thread other([&, seed = random_()] {
      issue(pinned, count / 10, survivor_, Random(static_cast<unsigned>(seed)));
    });
    issue(any, count, sut::Dispatcher::kAnyReplica, Random(static_cast<unsigned>(random_())));
    other.join();
    CHECK(dispatcher_->wait([&] { return any.done() && pinned.done(); }, kWaitS));
    check_counts(any.completed() + pinned.completed(), 0);
    tally_.samples += any.completed() + pinned.completed();
  }

  void issue_and_withdraw() {
    OnceSink sink(*dispatcher_, static_cast<std::size_t>(num_samples_), io_thread_);
    issue(sink, static_cast<std::size_t>(num_samples_), sut::Dispatcher::kAnyReplica,
          Random(static_cast<unsigned>(random_())));
    dispatcher_->withdraw_queued();
    wait_until([&] { return dispatcher_->is_drained(); });
    CHECK(sink.left_open() == 0);
    check_counts(num_samples_, num_samples_ - sink.completed());
    tally_.samples += sink.completed();
    tally_.withdrawn += num_samples_ - sink.completed();
  }

  // The last replica fails too: what has not completed is dropped, and no call follows.
  void issue_and_fail() {
    dispatcher_->reset_stats();
    OnceSink sink(*dispatcher_, static_cast<std::size_t>(num_samples_), io_thread_);
    issue(sink, static_cast<std::size_t>(num_samples_), sut::Dispatcher::kAnyReplica,
          Random(static_cast<unsigned>(random_())));
    for (int i = 0; i < num_replicas_; ++i) dispatcher_->lose({"engine_died", "", i});
    wait_until([&] { return dispatcher_->stopped(); });
    const std::int64_t completed = sink.completed(), left_open = sink.left_open();
    sleep_ms(between(random_, 0, 20));
    CHECK(sink.completed() == completed && sink.left_open() == left_open);
    const sut::Snapshot s = dispatcher_->stats();
    CHECK(s.completed == completed && s.failed == num_samples_ - completed);
    tally_.samples += completed;
    tally_.dropped += s.failed;
  }

  void run_loadgen(const std::string& scenario) {
    const std::string rate = std::to_string(between(random_, 2'000, 20'000));
    const std::string count = std::to_string(num_samples_);
    const std::string user_conf = "test." + scenario + ".min_duration = 0\n" +
                                  "test." + scenario + ".min_query_count = " + count + "\n" +
                                  "test." + scenario + ".use_token_latencies = 1\n" +
                                  "test." + scenario + ".target_qps = " + rate + "\n";
    sut::LoadGenTest test(dispatcher_, {"test", scenario, sut::LoadGenTest::Mode::kPerformance,
                                        user_conf, "", folder_.string(), "replay", "numbers"});
    test.start();
    const bool is_over = test.wait(kWaitS);
    check_not_failed();
    CHECK(is_over && test.finished());
    std::ifstream file(folder_ / "mlperf_log_detail.txt");
    const std::string log{std::istreambuf_iterator<char>(file), {}};
    CHECK(log.find("result_validity") != log.npos);
    CHECK(log.find("\"is_error\": true") == log.npos);
    const std::int64_t issued = dispatcher_->stats().issued;
    CHECK(issued >= num_samples_);
    check_counts(issued, 0);
    tally_.samples += issued;
    tally_.by_loadgen += issued;
  }

  void issue(OnceSink& sink, std::size_t count, int replica, Random random) {
    std::vector<sut::Sample> batch;
    const int pause_ms = between(random, 0, 3);
    for (std::size_t id = 0; id < count;) {
      batch.clear();
      for (int n = between(random, 1, 500); n > 0 && id < count; --n, ++id)
        batch.push_back({id, id % kNumPrompts});
      dispatcher_->issue(batch, sink, replica);
      if (pause_ms > 0 && between(random, 0, 3) == 0) sleep_ms(pause_ms);
    }
  }

  template <typename Condition>
  void wait_until(Condition condition) {
    for (int ms = 0; !condition(); ++ms) {
      CHECK(ms < kWaitS * 1'000);
      sleep_ms(1);
    }
  }

  void check_not_failed() {
    const auto failure = dispatcher_->failure();
    if (!failure) return;
    std::fprintf(stderr, "%s: %s\n", failure->code.c_str(), failure->message.c_str());
    CHECK(false);
  }

  void check_counts(std::int64_t issued, std::int64_t withdrawn) {
    check_not_failed();
    const sut::Snapshot s = dispatcher_->stats();
    const std::int64_t completed = issued - withdrawn;
    CHECK(s.issued == issued && s.withdrawn == withdrawn && s.completed == completed);
    CHECK(s.first_tokens == completed && s.admitted == completed && s.queued == 0 && s.failed == 0);
    CHECK(s.output_tokens == completed * static_cast<std::int64_t>(kMaxTokens));
    for (const auto& replica : s.replicas) CHECK(replica.in_flight == 0);
    const sut::SampleColumns c = dispatcher_->samples();
    CHECK(c.sample_index.size() == static_cast<std::size_t>(completed));
    for (std::size_t i = 0; i < c.sample_index.size(); ++i)
      CHECK(c.issued_ns[i] <= c.admitted_ns[i] && c.admitted_ns[i] <= c.first_token_ns[i] &&
            c.first_token_ns[i] <= c.completed_ns[i]);
  }

  Random random_;
  const int num_samples_;
  const fs::path folder_;
  Tally& tally_;
  const int num_replicas_;
  const int survivor_;
  RunKeys keys_;
  std::shared_ptr<sut::ReplicaLinks> links_;
  std::vector<Fault> faults_;
  std::vector<int> moments_;  // of each fault: samples sent to the replica, or completed by it
  std::vector<std::unique_ptr<EngineProcess>> engines_;
  std::vector<std::unique_ptr<RestartedEngine>> returned_;
  std::thread::id io_thread_;
  std::atomic<bool> rounds_over_{false};
  std::shared_ptr<sut::Dispatcher> dispatcher_;
};
