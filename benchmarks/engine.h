#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../csrc/replica_link.h"
#include "../csrc/tests/engine_process.h"

// A replay engine whose steps and prefill take no time, and the links to it.
struct LinkedEngine {
  // `authenticated`: as in every run. Otherwise the sockets are open to everyone, which only this
  // comparison can ask for.
  LinkedEngine(bool authenticated, int num_seqs) {
    const RunKeys keys(1);
    links = authenticated
                ? std::make_shared<sut::ReplicaLinks>("127.0.0.1", keys.of_front_end(), 1 << 20)
                : std::make_shared<sut::ReplicaLinks>("127.0.0.1",
                                                      sut::ReplicaLinks::ForBenchmarks{1});
    const std::vector<std::string> options = {
        "--max-num-seqs", std::to_string(num_seqs), "--max-num-batched-tokens", "65536",
        "--prefill-tokens-per-s", "0", "--step-base-us", "0"};
    const std::string& handshake = links->handshake_endpoint(0);
    engine = authenticated
                 ? std::make_unique<EngineProcess>(handshake, keys.of_engine(), options)
                 : std::make_unique<EngineProcess>(handshake, std::nullopt, options);
  }

  std::shared_ptr<sut::ReplicaLinks> links;
  std::unique_ptr<EngineProcess> engine;
};

inline bool is_authenticated(const std::string& argument) { return argument == "authenticated"; }
