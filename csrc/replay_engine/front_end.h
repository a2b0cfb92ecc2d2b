#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../protocol.h"
#include "connection.h"
#include "event_fds.h"
#include "handshake.h"

namespace replay {

// The engine's end of its connection to the front-end: the sockets, and the only blocking call.
class FrontEnd {
 public:
  static constexpr std::int64_t kForever = std::numeric_limits<std::int64_t>::max();
  static constexpr std::int64_t kNotAtAll = 0;

  // `reconnects`: once ready, a lost front-end is waited for, as vLLM does.
  FrontEnd(const std::string& handshake_address, bool reconnects, const Connection::Keys& keys);

  // Send HELLO and return the front-end's addresses; none if wait() returned false. Blocks for at
  // most five minutes, as vLLM does, and then throws std::runtime_error.
  std::optional<Addresses> send_hello();

  // Open the input and output sockets and finish the handshake; then requests arrive. False if
  // wait() returned false. Blocks and throws as send_hello() does.
  bool become_ready(const Addresses& addresses, std::span<const char> ready_response);

  // Receive one frame from the front-end; false if there is none.
  bool receive(sut::Frame& frame) { return connections_.front()->receive(frame); }

  // Send one frame to the front-end. Copies it, never blocks. Requires become_ready().
  void send(std::span<const char> frame) { output_->send(frame); }

  // Lose the connection for requests or outputs with the frames in transit, and reconnect, as
  // ZeroMQ does after a TCP reset.
  void reset_input();
  void reset_output();

  // Block until there is a frame to receive, or until `until_ns` on the clock of now_ns(). False
  // if the front-end has disconnected, unless reconnecting, or a stop signal has arrived.
  bool wait(std::int64_t until_ns);

  // Let sent frames leave before the process exits, for at most `limit`.
  void flush_on_exit(std::chrono::milliseconds limit) { output_->set_linger(limit); }

  // Why wait() returned false.
  const char* reason() const { return reason_; }

 private:
  void connect_input() {
    input_.emplace(context_, ZMQ_DEALER, addresses_.input, keys_, sut::protocol::kIdentity);
  }
  void connect_output() { output_.emplace(context_, ZMQ_PUSH, addresses_.output, keys_); }
  void poll_on_both() { poll_on({&*input_, &*output_}); }
  void poll_on(std::vector<Connection*> connections);
  bool lost_peer();

  bool outlives_front_end() const { return reconnects_ && output_; }

  const bool reconnects_;
  const Connection::Keys keys_;
  StopSignal stop_signal_;  // before the context, whose threads inherit the signal mask
  Alarm alarm_;
  std::int64_t alarm_at_ns_ = 0;
  sut::Context context_;
  std::optional<Connection> handshake_;
  std::optional<Connection> input_;
  std::optional<Connection> output_;
  Addresses addresses_;
  std::vector<Connection*> connections_;  // handshake_, then input_ and output_; the first is read
  std::vector<zmq_pollitem_t> poll_items_;
  const char* reason_ = "";
};

}  // namespace replay
