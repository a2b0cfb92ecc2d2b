#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../curve.h"
#include "../dispatcher.h"
#include "check.h"
#include "request.h"

extern char** environ;

// The path of the replay engine, an argument of every test program that needs one.
inline std::string replay_engine_path;

// The keys of a run: its front-end's, and those of each replica's engine.
struct RunKeys {
  explicit RunKeys(int num_replicas) : front_end(sut::curve::make_key_pair()) {
    for (int i = 0; i < num_replicas; ++i) engines.push_back(sut::curve::make_key_pair());
  }

  sut::FrontEndKeys of_front_end() const {
    sut::FrontEndKeys keys{front_end.secret_key, {}};
    for (const auto& engine : engines) keys.engines.push_back(engine.public_key);
    return keys;
  }
  sut::curve::EngineKeys of_engine(std::size_t i = 0) const {
    return {front_end.public_key, engines[i]};
  }

  sut::curve::KeyPair front_end;
  std::vector<sut::curve::KeyPair> engines;
};

// A replay engine as a child process, killed by the destructor.
class EngineProcess {
 public:
  EngineProcess(const std::string& handshake, const std::optional<sut::curve::EngineKeys>& keys,
                const std::vector<std::string>& more = {}) {
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
    std::string file;
    std::vector<char*> env;
    if (keys) {
      file = std::string(sut::curve::kKeyFileVariable) + "=" + write(*keys);
      env.push_back(file.data());
    }
    for (char** variable = environ; *variable; ++variable) env.push_back(*variable);
    env.push_back(nullptr);
    CHECK(posix_spawn(&pid_, argv[0], nullptr, nullptr, argv.data(), env.data()) == 0);
  }
  ~EngineProcess() {
    kill();
    waitpid(pid_, nullptr, 0);
    if (key_file_ >= 0) close(key_file_);
  }
  EngineProcess(const EngineProcess&) = delete;
  EngineProcess& operator=(const EngineProcess&) = delete;

  void kill() { send(SIGKILL); }
  void send(int signal) { ::kill(pid_, signal); }

 private:
  // Returns the path of a file that ends with this object.
  std::string write(const sut::curve::EngineKeys& keys) {
    const std::string text =
        keys.front_end + "\n" + keys.own.public_key + "\n" + keys.own.secret_key + "\n";
    key_file_ = memfd_create("keys", MFD_CLOEXEC);
    CHECK(::write(key_file_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(key_file_);
  }

  pid_t pid_ = 0;
  int key_file_ = -1;
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

inline constexpr std::size_t kMaxOutputBytes = 64 << 10;
inline constexpr sut::Dispatcher::Options kOptions{kMaxTokens, 30.0, 30.0};

// A dispatcher with its engines, ready and with credit.
struct System {
  explicit System(int num_replicas, const std::vector<std::string>& engine_options = {})
      : System(num_replicas, kOptions, engine_options) {}
  // `more_options` are those of the replica `faulty` in addition.
  System(int num_replicas, const sut::Dispatcher::Options& options,
         const std::vector<std::string>& engine_options,
         const std::vector<std::string>& more_options = {}, int faulty = -1)
      : keys(num_replicas),
        links(std::make_shared<sut::ReplicaLinks>("127.0.0.1", keys.of_front_end(),
                                                  kMaxOutputBytes)) {
    for (int i = 0; i < num_replicas; ++i) {
      std::vector<std::string> words = engine_options;
      if (i == faulty) words.insert(words.end(), more_options.begin(), more_options.end());
      engines.push_back(std::make_unique<EngineProcess>(
          links->handshake_endpoint(i), keys.of_engine(static_cast<std::size_t>(i)), words));
    }
    dispatcher = std::make_shared<sut::Dispatcher>(links, make_store(100), sut::WireLayout{},
                                                   options);
    CHECK(dispatcher->wait_ready(60));
    for (int i = 0; i < num_replicas; ++i) dispatcher->set_credit(i, 10);
  }

  RunKeys keys;
  std::shared_ptr<sut::ReplicaLinks> links;
  std::shared_ptr<sut::Dispatcher> dispatcher;
  std::vector<std::unique_ptr<EngineProcess>> engines;
};

// An engine that was started again in a lost replica's place: ready, and with samples behind it.
struct RestartedEngine {
  explicit RestartedEngine(const std::vector<std::string>& options = {},
                           sut::Dispatcher::Options limits = kOptions)
      : links(std::make_shared<sut::ReplicaLinks>("127.0.0.1", keys.of_front_end(),
                                                  kMaxOutputBytes)),
        process(std::make_unique<EngineProcess>(links->handshake_endpoint(0), keys.of_engine(),
                                                options)) {
    limits.first_use = sut::Dispatcher::kWarmUpFirstUse;
    dispatcher = std::make_unique<sut::Dispatcher>(links, make_store(100), sut::WireLayout{},
                                                   limits);
    CHECK(dispatcher->wait_ready(60));
    dispatcher->set_credit(0, 10);
  }

  RunKeys keys{1};
  std::shared_ptr<sut::ReplicaLinks> links;
  std::unique_ptr<EngineProcess> process;
  std::unique_ptr<sut::Dispatcher> dispatcher;
};
