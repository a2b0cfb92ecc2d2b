// The dispatcher with many replicas, whose engines are simulated in this process.
//
// Usage: scale wakeups|events|steps NUM_REPLICAS SECONDS
//   wakeups  one sample of one token at a time. Prints the CPU time of the dispatcher's thread for
//            each of its wake-ups, of which a sample has two (sent, answered), in microseconds.
//   events   64 sequences on each replica, steps that take no time, for at least SECONDS. Prints
//            token events a second, the CPU time of the dispatcher's thread for each, in
//            microseconds, and that of this process, engines and libzmq included.
//   steps    the same with steps of 22 ms and 0.12 ms for each sequence.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "../csrc/dispatcher.h"
#include "../csrc/generate.h"
#include "../csrc/tests/simulated_engines.h"
#include "cpu_time.h"

namespace {

constexpr std::size_t kNumSeqs = 64;
constexpr std::uint32_t kNumTokens = 64;

class CountingSink final : public sut::ResponseSink {
 public:
  void on_first_token(std::uintptr_t, std::span<const std::int32_t>) override {}
  void on_complete(std::uintptr_t, std::span<const std::int32_t>) override { ++num_completed; }

  std::atomic<std::int64_t> num_completed{0};
};

// A dispatcher, ready, and the number of its thread.
struct ManyReplicas {
  ManyReplicas(int num_replicas, const SimulatedOptions& options)
      : keys(num_replicas),
        links(std::make_shared<sut::ReplicaLinks>("127.0.0.1", keys.of_front_end(), 1 << 20)) {
    auto store = std::make_shared<sut::SampleStore>();
    store->add(encode_request(std::vector<int>(256, 100), options.num_tokens), 2, 256);
    store->seal();
    const std::set<int> before = threads();
    dispatcher = std::make_unique<sut::Dispatcher>(
        links, store, sut::WireLayout{}, sut::Dispatcher::Options{options.num_tokens, 600.0, 600.0});
    for (const int thread : threads())
      if (!before.contains(thread)) io_thread = thread;
    engines = std::make_unique<SimulatedEngines>(*links, keys, options);
    CHECK(dispatcher->wait_ready(120));
    for (int i = 0; i < num_replicas; ++i) dispatcher->set_credit(i, kNumSeqs);
    sut::generate(*dispatcher, std::vector<std::size_t>(10, 0), sut::Dispatcher::kAnyReplica, 60);
  }

  RunKeys keys;
  std::shared_ptr<sut::ReplicaLinks> links;
  std::unique_ptr<sut::Dispatcher> dispatcher;
  std::unique_ptr<SimulatedEngines> engines;
  int io_thread = 0;
};

void measure_wakeups(int num_replicas, double seconds) {
  const ManyReplicas system(num_replicas, {.num_tokens = 1, .max_num_seqs = kNumSeqs});
  const double cpu_before = cpu_s_of_thread(system.io_thread);
  const std::int64_t until = sut::now_ns() + static_cast<std::int64_t>(1e9 * seconds);
  int num_samples = 0;
  for (; sut::now_ns() < until; ++num_samples)
    sut::generate(*system.dispatcher, {0}, sut::Dispatcher::kAnyReplica, 60);
  std::printf("%f\n", 1e6 * (cpu_s_of_thread(system.io_thread) - cpu_before) / (2 * num_samples));
}

// All sequences begin together, so their requests are sent together: the work changes in the course
// of an answer. Measures whole rounds of as many answers as there are sequences, after the first.
void measure_events(int num_replicas, double seconds, SimulatedOptions options) {
  options.num_tokens = kNumTokens;
  options.max_num_seqs = kNumSeqs;
  const ManyReplicas system(num_replicas, options);
  CountingSink sink;
  const std::vector<sut::Sample> round(static_cast<std::size_t>(num_replicas) * kNumSeqs);
  const auto round_size = static_cast<std::int64_t>(round.size());
  struct Moment {
    sut::Snapshot stats;
    double own_s, all_s;
  };
  std::int64_t num_issued = 0;
  // The moment when so many samples are complete. Two more rounds wait until then.
  const auto at = [&](std::int64_t num_completed) {
    while (sink.num_completed < num_completed) {
      CHECK(!system.dispatcher->failure());
      for (; num_issued < sink.num_completed + 3 * round_size; num_issued += round_size)
        system.dispatcher->issue(round, sink);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return Moment{system.dispatcher->stats(), cpu_s_of_thread(system.io_thread), cpu_s()};
  };
  const Moment before = at(2 * round_size);
  Moment after = before;
  do
    after = at(sink.num_completed + round_size);
  while (1e-9 * static_cast<double>(after.stats.elapsed_ns - before.stats.elapsed_ns) < seconds);
  const auto num_events =
      static_cast<double>(after.stats.output_tokens - before.stats.output_tokens);
  const double elapsed_s =
      1e-9 * static_cast<double>(after.stats.elapsed_ns - before.stats.elapsed_ns);
  std::printf("%f %f %f\n", num_events / elapsed_s, 1e6 * (after.own_s - before.own_s) / num_events,
              1e6 * (after.all_s - before.all_s) / num_events);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::string what = argv[1];
  const int num_replicas = std::stoi(argv[2]);
  const double seconds = std::stod(argv[3]);
  try {
    if (what == "wakeups") measure_wakeups(num_replicas, seconds);
    if (what == "events") measure_events(num_replicas, seconds, {});
    if (what == "steps")
      measure_events(num_replicas, seconds,
                     {.num_tokens = 0, .max_num_seqs = 0, .step_base_ns = 22'000'000,
                      .step_per_sequence_ns = 120'000});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "scale: error: %s\n", error.what());
    return 1;
  }
  std::fflush(stdout);
  _exit(0);  // without waiting for the sockets to close
}
