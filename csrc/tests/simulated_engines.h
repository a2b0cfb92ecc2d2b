#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <msgpack.hpp>
#include <queue>
#include <thread>
#include <utility>
#include <vector>

#include "../clock.h"
#include "../curve.h"
#include "../poller.h"
#include "../replay_engine/event_fds.h"
#include "../replica_link.h"
#include "../wake_up.h"
#include "../wire.h"
#include "check.h"
#include "engine_process.h"

// How simulated engines answer. A step gives each running request a token.
struct SimulatedOptions {
  std::uint32_t num_tokens;        // of every answer
  std::size_t max_num_seqs;        // that run at once in an engine; others wait
  std::int64_t step_base_ns = 0;   // how long a step takes, and
  std::int64_t step_per_sequence_ns = 0;
};

// The engine of one replica: vLLM's protocol from the ready response on.
class SimulatedEngine {
 public:
  SimulatedEngine(const sut::Context& context, const sut::LinkEndpoints& at,
                  const sut::curve::EngineKeys& keys, const SimulatedOptions& options)
      : options_(options), input_(context, ZMQ_DEALER), output_(context, ZMQ_PUSH) {
    for (sut::Socket* socket : {&input_, &output_}) sut::curve::authenticate(*socket, keys);
    input_.set(ZMQ_ROUTING_ID, sut::protocol::kIdentity);
    input_.connect(at.input);
    output_.connect(at.output);
    sut::Frame ready(std::string_view("ready"));
    CHECK(input_.send(ready, false));
  }

  int descriptor() const { return input_.descriptor(); }

  // Receives requests. Returns true if a step begins, because none was running.
  bool receive() {
    sut::Frame type, request;
    while (input_.receive(type)) {
      CHECK(input_.receive(request));
      Id& id = waiting_.emplace_back();
      std::memcpy(id.data(), request.data() + 2, id.size());
    }
    return running_.empty() && admit();
  }

  // Ends a step and sends its frame. Returns true if another begins.
  bool step() {
    buffer_.clear();
    msgpack::packer<msgpack::sbuffer> p(buffer_);
    p.pack_array(4).pack(0).pack_array(static_cast<std::uint32_t>(running_.size()));
    for (Running& request : running_) {
      p.pack_array(6).pack_str(sut::kRequestIdLength);
      p.pack_str_body(request.id.data(), sut::kRequestIdLength).pack_array(1).pack(70'000);
      for (int i = 0; i < 3; ++i) p.pack_nil();
      if (++request.num_tokens == options_.num_tokens)
        p.pack(1);
      else
        p.pack_nil();
    }
    p.pack_nil().pack(1e-9 * static_cast<double>(sut::now_ns()));
    sut::Frame frame(std::span<const char>(buffer_.data(), buffer_.size()));
    CHECK(output_.send(frame, false));
    std::erase_if(running_, [this](const Running& r) { return r.num_tokens == options_.num_tokens; });
    return admit();
  }

  std::int64_t step_ns() const {
    return options_.step_base_ns +
           options_.step_per_sequence_ns * static_cast<std::int64_t>(running_.size());
  }

 private:
  using Id = std::array<char, sut::kRequestIdLength>;
  struct Running {
    Id id;
    std::uint32_t num_tokens;
  };

  bool admit() {
    for (; !waiting_.empty() && running_.size() < options_.max_num_seqs; waiting_.pop_front())
      running_.push_back({waiting_.front(), 0});
    return !running_.empty();
  }

  const SimulatedOptions options_;
  sut::Socket input_;
  sut::Socket output_;
  std::deque<Id> waiting_;
  std::vector<Running> running_;
  msgpack::sbuffer buffer_;
};

// The engines of many replicas in one thread of this process, where processes are too many.
class SimulatedEngines {
 public:
  SimulatedEngines(const sut::ReplicaLinks& links, const RunKeys& keys,
                   const SimulatedOptions& options) {
    const std::size_t num_replicas = keys.engines.size();
    // Two sockets with their connections, of which this process has both ends.
    sut::reserve_descriptors(6 * num_replicas + 64, "the simulated engines");
    context_.set_max_sockets(2 * num_replicas + 16);
    for (std::size_t i = 0; i < num_replicas; ++i) {
      engines_.push_back(std::make_unique<SimulatedEngine>(
          context_, links.endpoints(static_cast<int>(i)), keys.of_engine(i), options));
      poller_.add(engines_[i]->descriptor(), i);
    }
    poller_.add(closing_.fd(), kClosing);
    poller_.add(alarm_.fd(), kAlarm);
    thread_ = std::thread([this] { run(); });
  }
  ~SimulatedEngines() {
    closing_.ring();
    thread_.join();
  }
  SimulatedEngines(const SimulatedEngines&) = delete;
  SimulatedEngines& operator=(const SimulatedEngines&) = delete;

 private:
  static constexpr std::uint64_t kClosing = UINT64_MAX, kAlarm = UINT64_MAX - 1;

  void run() {
    for (std::size_t i = 0; i < engines_.size(); ++i) receive(i);
    for (bool is_closing = false; !is_closing;) {
      const std::int64_t now = sut::now_ns();
      const bool is_due = !steps_.empty() && steps_.top().first <= now;
      if (!is_due && !steps_.empty()) alarm_.set(steps_.top().first);
      poller_.wait(is_due ? 0 : -1, [&](std::uint64_t key) {
        if (key == kAlarm)
          alarm_.clear();
        else if (key == kClosing)
          is_closing = true;
        else
          receive(key);
      });
      if (is_due) step();
    }
  }

  void receive(std::size_t i) {
    if (engines_[i]->receive()) steps_.push({sut::now_ns() + engines_[i]->step_ns(), i});
  }

  // The first engine whose step ends.
  void step() {
    const auto [end_ns, i] = steps_.top();
    steps_.pop();
    if (!engines_[i]->step()) return;
    const std::int64_t step_ns = engines_[i]->step_ns();
    // Steps without a duration take turns.
    steps_.push({(step_ns > 0 ? end_ns : sut::now_ns()) + step_ns, i});
  }

  using Step = std::pair<std::int64_t, std::size_t>;  // its end and its engine

  sut::Context context_;
  std::vector<std::unique_ptr<SimulatedEngine>> engines_;
  sut::WakeUp closing_;
  replay::Alarm alarm_;
  sut::Poller poller_;
  std::priority_queue<Step, std::vector<Step>, std::greater<>> steps_;
  std::thread thread_;  // last: it uses every member above
};
