#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "../dispatcher.h"
#include "check.h"
#include "request.h"

extern char** environ;

// The path of the replay engine, an argument of every test program that needs one.
inline std::string replay_engine_path;

// A replay engine as a child process, killed by the destructor.
class EngineProcess {
 public:
  EngineProcess(const std::string& handshake, const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {replay_engine_path, "--handshake", handshake,
                                      "--max-num-seqs", "8", "--max-model-len", "1024",
                                      "--max-num-batched-tokens", "4096",
                                      "--prefill-tokens-per-s", "1000000",
                                      "--step-base-us", "200", "--step-per-sequence-us", "0",
                                      "--seed", "1"};
    words.insert(words.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    CHECK(posix_spawn(&pid_, argv[0], nullptr, nullptr, argv.data(), environ) == 0);
  }
  ~EngineProcess() {
    kill();
    waitpid(pid_, nullptr, 0);
  }
  EngineProcess(const EngineProcess&) = delete;
  EngineProcess& operator=(const EngineProcess&) = delete;

  void kill() { ::kill(pid_, SIGKILL); }

 private:
  pid_t pid_ = 0;
};

inline constexpr std::size_t kMaxTokens = 12;

// The prompt of sample i. The replay engine's answer repeats it.
inline std::vector<int> prompt_of(std::size_t i) {
  std::vector<int> prompt;
  for (std::size_t n = 0; n < 3 + i % 5; ++n) prompt.push_back(static_cast<int>(100 * i + n));
  return prompt;
}

inline std::shared_ptr<sut::SampleStore> make_store(std::size_t num_samples) {
  auto store = std::make_shared<sut::SampleStore>();
  for (std::size_t i = 0; i < num_samples; ++i) {
    const std::vector<int> prompt = prompt_of(i);
    store->add(encode_request(prompt, kMaxTokens), 2, static_cast<std::uint32_t>(prompt.size()));
  }
  store->seal();
  return store;
}

inline constexpr sut::Dispatcher::Options kOptions{kMaxTokens, 30.0, 30.0};

// A dispatcher with its engines, ready and with credit.
struct System {
  explicit System(int num_replicas, const std::vector<std::string>& engine_options = {})
      : System(num_replicas, kOptions, engine_options) {}
  System(int num_replicas, const sut::Dispatcher::Options& options,
         const std::vector<std::string>& engine_options)
      : links(std::make_shared<sut::ReplicaLinks>("127.0.0.1", num_replicas)) {
    for (int i = 0; i < num_replicas; ++i)
      engines.push_back(
          std::make_unique<EngineProcess>(links->handshake_endpoint(i), engine_options));
    dispatcher = std::make_shared<sut::Dispatcher>(links, make_store(100), sut::WireLayout{},
                                                   options);
    CHECK(dispatcher->wait_ready(60));
    for (int i = 0; i < num_replicas; ++i) dispatcher->set_credit(i, 10);
  }

  std::shared_ptr<sut::ReplicaLinks> links;
  std::shared_ptr<sut::Dispatcher> dispatcher;
  std::vector<std::unique_ptr<EngineProcess>> engines;
};
