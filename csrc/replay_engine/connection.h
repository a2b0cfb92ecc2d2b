#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "../connection_monitor.h"
#include "../curve.h"
#include "../socket.h"

namespace replay {

// A connecting socket and a monitor of its connection. Calls throw sut::SocketError; none blocks.
class Connection {
 public:
  using Keys = std::optional<sut::curve::EngineKeys>;

  // The peer counts as lost when it closes the connection or is silent for 30 s. With keys, it must
  // prove that it is the front-end. An attempt to connect that fails is made again, and is no loss.
  Connection(const sut::Context& context, int type, const std::string& endpoint, const Keys& keys,
             std::string_view identity = {})
      : socket_(context, type),
        monitor_(context, socket_, sut::ConnectionMonitor::kConnecting) {
    socket_.set(ZMQ_HEARTBEAT_IVL, 10'000);
    socket_.set(ZMQ_HEARTBEAT_TIMEOUT, 30'000);
    if (keys) sut::curve::authenticate(socket_, *keys);
    if (!identity.empty()) socket_.set(ZMQ_ROUTING_ID, identity);
    if (endpoint.starts_with("tcp://[")) socket_.set(ZMQ_IPV6, 1);
    socket_.connect(endpoint);
  }

  // How long sent frames may still leave after this is destroyed.
  void set_linger(std::chrono::milliseconds linger) {
    socket_.set(ZMQ_LINGER, static_cast<int>(linger.count()));
  }

  void send(std::span<const char> bytes) {
    sut::Frame frame(bytes);
    socket_.send(frame, false);
  }

  // False if there is nothing to read.
  bool receive(sut::Frame& frame) { return socket_.receive(frame); }

  zmq_pollitem_t readable() const { return socket_.readable(); }

  // Whether the peer was lost since the last call. To be called when `events` is readable.
  bool take_lost_peer() { return monitor_.take_lost_peer(); }
  bool has_peer() const { return monitor_.has_peer(); }
  zmq_pollitem_t events() const { return monitor_.readable(); }

 private:
  sut::Socket socket_;
  sut::ConnectionMonitor monitor_;
};

}  // namespace replay
