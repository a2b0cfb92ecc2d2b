// LoadGen with our dispatcher and one engine.
//
// Usage: ours REPLAY_ENGINE authenticated|open SCENARIO USER_CONF LOG_DIR NUM_SAMPLES NUM_TOKENS
//        NUM_SEQS
// Prints the CPU time of the test, in seconds.
#include <cstdio>
#include <fstream>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "../csrc/dispatcher.h"
#include "../csrc/generate.h"
#include "../csrc/loadgen_test.h"
#include "cpu_time.h"
#include "engine.h"

int main(int argc, char** argv) {
  if (argc != 9) return 2;
  replay_engine_path = argv[1];
  const std::string scenario = argv[3], log_dir = argv[5];
  std::ostringstream user_conf;
  user_conf << std::ifstream(argv[4]).rdbuf();
  const std::size_t num_samples = std::stoul(argv[6]), num_tokens = std::stoul(argv[7]);
  const int num_seqs = std::stoi(argv[8]);

  auto store = std::make_shared<sut::SampleStore>();
  const std::string encoded = encode_request(std::vector<int>(256, 100), num_tokens);
  for (std::size_t i = 0; i < num_samples; ++i) store->add(encoded, 2, 256);
  store->seal();
  const LinkedEngine linked(is_authenticated(argv[2]), num_seqs);
  const auto dispatcher = std::make_shared<sut::Dispatcher>(
      linked.links, store, sut::WireLayout{}, sut::Dispatcher::Options{num_tokens, 600.0, 600.0});
  CHECK(dispatcher->wait_ready(60));
  dispatcher->set_credit(0, static_cast<std::size_t>(num_seqs + num_seqs / 4));
  std::vector<std::size_t> first(100);
  std::iota(first.begin(), first.end(), std::size_t{0});
  sut::generate(*dispatcher, first, 0, 60);

  sut::LoadGenTest test(dispatcher,
                        {"bench", scenario, sut::LoadGenTest::Mode::kPerformance, user_conf.str(),
                         "", log_dir, "ours", "numbers"});
  const double before = cpu_s();
  test.start();
  CHECK(test.wait(3600) && test.finished());
  std::printf("%f\n", cpu_s() - before);
  dispatcher->close();
}
