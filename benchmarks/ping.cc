// A bare client of one engine: sends a request and waits for its first token. Measures engine and
// sockets alone, without LoadGen and without a dispatcher.
//
// Usage: ping REPLAY_ENGINE authenticated|open QUERIES_PER_S SECONDS NUM_TOKENS
// Prints the p50 and p99 of the time to the first token, in microseconds.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../csrc/stats.h"
#include "engine.h"

namespace {

void wait_for(sut::ReplicaLink& link, sut::ReplicaLink::Item item) {
  zmq_pollitem_t readable = link.poll_items()[item];
  zmq_poll(&readable, 1, -1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  replay_engine_path = argv[1];
  const double queries_per_s = std::stod(argv[3]);
  const auto num_queries = static_cast<std::uint32_t>(queries_per_s * std::stod(argv[4]));
  const std::string encoded =
      encode_request(std::vector<int>(256, 100), std::stoul(argv[5]));

  const LinkedEngine linked(is_authenticated(argv[2]), 256);
  sut::ReplicaLink& link = (*linked.links)[0];
  wait_for(link, sut::ReplicaLink::kHandshake);
  link.serve_handshake();
  while (!link.receive_ready()) wait_for(link, sut::ReplicaLink::kInput);

  std::mt19937_64 random(1);
  std::exponential_distribution<double> gap_s(queries_per_s);
  std::vector<std::int64_t> latencies;
  auto next = std::chrono::steady_clock::now();
  sut::Frame frame;
  for (std::uint32_t i = 0; i < num_queries; ++i) {
    next += std::chrono::nanoseconds(static_cast<std::int64_t>(1e9 * gap_s(random)));
    std::this_thread::sleep_until(next);
    while (link.receive_output(frame)) {
    }
    const std::int64_t begin = sut::now_ns();
    link.send({encoded, 2, 256}, {i, 1});
    do wait_for(link, sut::ReplicaLink::kOutput);
    while (!link.receive_output(frame));
    latencies.push_back(sut::now_ns() - begin);
  }
  for (const auto& [name, value] : sut::quantiles_of(latencies))
    if (name == "p50" || name == "p99") std::printf("%f ", static_cast<double>(value) / 1e3);
  std::printf("\n");
}
