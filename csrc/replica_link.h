#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "admission.h"
#include "connection_monitor.h"
#include "descriptor_limit.h"
#include "sample_store.h"
#include "socket.h"
#include "wire.h"

namespace sut {

// The ports of a replica's sockets on the front-end's host.
struct ReplicaPorts {
  int handshake = Socket::kAnyPort;
  int input = Socket::kAnyPort;
  int output = Socket::kAnyPort;
};

// What admits the engines of a run, and nobody else, to the front-end's sockets. Keys as in curve.h.
struct FrontEndKeys {
  std::string secret_key;            // the front-end's
  std::vector<std::string> engines;  // the public key of each replica's engine
};

struct LinkEndpoints {
  std::string handshake;  // tcp://HOST:PORT
  std::string input;
  std::string output;
};

// The front-end's sockets for one replica, and vLLM's handshake on them (protocol.h). Created on
// any thread, then used only by the dispatcher's I/O thread.
//
//   handshake  ROUTER
//   input      ROUTER
//   output     PULL
//
// Every engine of a job has the same identity (data-parallel size 1), so each replica needs its
// own set. Only the holder of the engine's key can connect: a message here is the engine's.
class ReplicaLink {
 public:
  struct Options {
    std::string host;
    ReplicaPorts ports;
    std::string secret_key;  // the front-end's; empty: no authentication
    std::string domain;      // for the context's Admission
    std::size_t max_output_bytes = 0;  // of a frame; a longer one ends its connection. 0: no limit
  };

  // The ZeroMQ sockets of a link: three, and for each the two ends of its monitor.
  static constexpr std::size_t kNumSockets = 9;
  // One for each of those, three that listen and three connections of the engine.
  static constexpr std::size_t kNumDescriptors = kNumSockets + 6;

  ReplicaLink(const Context& context, const Options& options);

  const LinkEndpoints& endpoints() const { return endpoints_; }

  // Continue with an engine that an earlier front-end on the same ports left idle, and whose ready
  // response that front-end kept. The engine reconnects automatically and sends no other one. Needs
  // given ports.
  void adopt(std::string ready_response) { adopted_ = std::move(ready_response); }

  // Poll these for input; in the order of Item. What has arrived at an item is read completely by
  // serve_handshake(), receive_ready(), receive_output() until it is false, or take_*_lost().
  enum Item { kHandshake, kInput, kOutput, kHandshakeLost, kInputLost, kOutputLost, kNumItems };
  std::array<zmq_pollitem_t, kNumItems> poll_items() const {
    return {handshake_.readable(),      input_.readable(),      output_.readable(),
            handshake_lost_.readable(), input_lost_.readable(), output_lost_.readable()};
  }
  // The same for a Poller.
  std::array<int, kNumItems> descriptors() const {
    return {handshake_.descriptor(),      input_.descriptor(),      output_.descriptor(),
            handshake_lost_.descriptor(), input_lost_.descriptor(), output_lost_.descriptor()};
  }

  // Answers the first HELLO with our addresses, and no other message.
  void serve_handshake();

  // The engine's ready response (msgpack), if it has arrived; that of an adopted engine, once both
  // of its connections are there.
  std::optional<std::string> receive_ready();

  // One frame of outputs. False if there is none.
  bool receive_output(Frame& frame);

  // Reads and drops everything that has arrived.
  void discard();

  // Sends one request with `id` written into it. False if the engine is gone. Afterwards, call
  // receive_ready() before waiting for kInput with a Poller.
  bool send(const SampleStore::Request& request, RequestId id);

  // Whether a frame of outputs arrived on the same connection as the first one. If not, the first
  // connection was lost, even where our end has not noticed yet.
  bool is_by_first_connection(const Frame& output) const {
    return output.source() == output_source_;
  }

  // Whether the connection that carried the ready response (or the outputs) was lost since the
  // last call; before the first outputs, whether the engine has connected again for them.
  bool take_input_lost() { return input_lost_.take(input_source_); }
  bool take_output_lost();
  void take_handshake_lost() { handshake_lost_.take(kUnknown); }

  // The connections of others so far, as of the calls above.
  std::int64_t num_refused() const {
    return handshake_lost_.num_refused() + input_lost_.num_refused() + output_lost_.num_refused();
  }

 private:
  static constexpr int kUnknown = -1;
  static constexpr int kLost = -2;  // equals no Frame's source()

  std::optional<std::string> receive_adopted();
  // Whether the engine has connected its outputs again between the first request and the first frame
  // of outputs: frames may have been lost.
  bool has_reconnected_output();

  Socket handshake_;
  Socket input_;
  Socket output_;
  ConnectionMonitor handshake_lost_;
  ConnectionMonitor input_lost_;
  ConnectionMonitor output_lost_;
  bool said_hello_ = false;
  int input_source_ = kUnknown;
  int output_source_ = kUnknown;
  int max_greeted_ = 0;  // connections for outputs, from the first request on; 0: none was sent
  LinkEndpoints endpoints_;
  std::string identity_;  // the engine's, as reported by ROUTER
  std::optional<std::string> adopted_;  // its ready response, until it has reconnected
};

// The links of every replica of a run. They are bound on construction, so engines can start before
// there is a dispatcher; their messages wait in the sockets.
class ReplicaLinks {
 public:
  // Of as many replicas as there are engines' keys. No frame of outputs is longer than
  // `max_output_bytes`. `ports` has those of each replica, or is empty for free ones. Raises this
  // process's soft limit of file descriptors if needed. Throws SocketError, LimitError,
  // std::invalid_argument.
  ReplicaLinks(const std::string& host, const FrontEndKeys& keys, std::size_t max_output_bytes,
               const std::vector<ReplicaPorts>& ports = {});

  // Sockets that anyone can use, to measure what authentication costs.
  struct ForBenchmarks {
    int num_replicas;
  };
  ReplicaLinks(const std::string& host, ForBenchmarks unauthenticated);

  std::size_t size() const { return links_.size(); }
  ReplicaLink& operator[](std::size_t i) { return *links_[i]; }

  // Throws std::out_of_range.
  const LinkEndpoints& endpoints(int replica) const;
  const std::string& handshake_endpoint(int replica) const { return endpoints(replica).handshake; }

  // See ReplicaLink::adopt(); before take(). Throws std::out_of_range, std::logic_error.
  void adopt(int replica, std::string ready_response);

  // Claims the links for a dispatcher. Throws std::logic_error on the second call.
  void take();

  // Closes the sockets of a replica, by the thread that uses its link.
  void close(std::size_t i) { links_[i].reset(); }

 private:
  void make_room(std::size_t num_replicas);
  void open(const ReplicaLink::Options& options);

  Context context_;
  std::optional<Admission> admission_;  // before the sockets, so that it outlives them
  std::vector<std::unique_ptr<ReplicaLink>> links_;
  std::vector<LinkEndpoints> endpoints_;
  std::atomic<bool> taken_{false};
};

}  // namespace sut
