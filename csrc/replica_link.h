#pragma once

#include <optional>
#include <string>

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
  Socket& handshake() { return handshake_; }
  Socket& input() { return input_; }
  Socket& output() { return output_; }
  Socket& monitor() { return monitor_; }

  // Answers a waiting HELLO with our addresses. Nothing else on this socket needs an answer.
  void serve_handshake();

  // The engine's ready response (msgpack), when one has come.
  std::optional<std::string> receive_ready();

  // Sends one request with `id` written into it. False when the engine is gone.
  bool send(const SampleStore::Request& request, RequestId id);

  // True once per lost connection of any peer: ours, or a stranger that knocked on the port.
  bool take_disconnect();

  // Whether our engine can still be reached; asks by an abort of no requests.
  bool probe();

 private:
  bool send_frames(char type, Frame& payload);

  Socket handshake_;
  Socket input_;
  Socket output_;
  Socket monitor_;
  std::string handshake_endpoint_;
  std::string input_endpoint_;
  std::string output_endpoint_;
  std::string identity_;  // the engine's, as ROUTER tells it
};

}  // namespace sut
