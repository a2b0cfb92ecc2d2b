#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "disconnect_monitor.h"
#include "sample_store.h"
#include "socket.h"
#include "wire.h"

namespace sut {

// The sockets of one replica and vLLM's handshake on them. Made on any thread, then used by the
// dispatcher's I/O thread alone.
//
//   handshake  ROUTER  HELLO -> addresses; READY when the model is loaded
//   input      ROUTER  the ready response comes first, then requests go out
//   output     PULL    EngineCoreOutputs
//
// Every engine of a job has the same identity (data-parallel size 1), hence a set per replica.
class ReplicaLink {
 public:
  ReplicaLink(const Context& context, const std::string& host);

  const std::string& handshake_endpoint() const { return handshake_endpoint_; }
  // To poll for input, in this order.
  enum Item { kHandshake, kInput, kOutput, kInputLost, kOutputLost, kNumItems };
  std::array<zmq_pollitem_t, kNumItems> poll_items() const {
    return {handshake_.readable(), input_.readable(), output_.readable(), input_lost_.readable(),
            output_lost_.readable()};
  }

  // Answers a waiting HELLO with our addresses. Nothing else on this socket needs an answer.
  void serve_handshake();

  // The engine's ready response (msgpack), when one has come.
  std::optional<std::string> receive_ready();

  // One frame of outputs. False when there is none.
  bool receive_output(Frame& frame);

  // Sends one request with `id` written into it. False when the engine is gone.
  bool send(const SampleStore::Request& request, RequestId id);

  // Whether a frame of outputs came by the connection that the first one came by. Another tells
  // that this one was lost, even where only the engine's end knows of it.
  bool is_by_first_connection(const Frame& output) const {
    return output.source() == output_source_;
  }

  // Whether the engine's connection was lost since the last call, the one that its ready response
  // or its outputs came by.
  bool take_input_lost() { return input_lost_.take(input_source_); }
  bool take_output_lost() { return output_lost_.take(output_source_); }

 private:
  static constexpr int kUnknown = -1;

  Socket handshake_;
  Socket input_;
  Socket output_;
  DisconnectMonitor input_lost_;
  DisconnectMonitor output_lost_;
  int input_source_ = kUnknown;
  int output_source_ = kUnknown;
  std::string handshake_endpoint_;
  std::string input_endpoint_;
  std::string output_endpoint_;
  std::string identity_;  // the engine's, as ROUTER tells it
};

// The links of every replica of a run, bound, so that engines can be started before anything else
// is known. What they say waits in the sockets until a dispatcher takes the links.
class ReplicaLinks {
 public:
  // Throws SocketError, std::invalid_argument.
  ReplicaLinks(const std::string& host, int num_replicas);

  std::size_t size() const { return links_.size(); }
  ReplicaLink& operator[](std::size_t i) { return *links_[i]; }

  // tcp://HOST:PORT, for a replica's engine. Throws std::out_of_range.
  const std::string& handshake_endpoint(int replica) const;

  // Called once, by the dispatcher. Throws std::logic_error when there is one already.
  void take();

 private:
  Context context_;
  std::vector<std::unique_ptr<ReplicaLink>> links_;
  std::atomic<bool> taken_{false};
};

}  // namespace sut
