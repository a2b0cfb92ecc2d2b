#pragma once

#include <zmq.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "socket.h"

namespace sut {

// Reports a lost connection of a socket, even where the peer reconnects at once and ZeroMQ
// continues as if nothing had been lost. Used by the socket's thread; must not outlive the socket.
class ConnectionMonitor {
 public:
  static constexpr int kLosses = ZMQ_EVENT_DISCONNECTED;
  static constexpr int kAll =
      ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED;

  ConnectionMonitor(const Context& context, Socket& watched, int events)
      : watched_(watched), events_(context, ZMQ_PAIR) {
    const std::string endpoint =
        "inproc://monitor-" + std::to_string(reinterpret_cast<std::uintptr_t>(watched.handle()));
    if (zmq_socket_monitor(watched.handle(), endpoint.c_str(), events) != 0)
      throw SocketError("zmq_socket_monitor");
    events_.connect(endpoint);
  }
  // If a monitor is still on when its reader closes, the next event blocks ZeroMQ's I/O thread and
  // every socket with it.
  ~ConnectionMonitor() { zmq_socket_monitor(watched_.handle(), nullptr, 0); }
  ConnectionMonitor(const ConnectionMonitor&) = delete;
  ConnectionMonitor& operator=(const ConnectionMonitor&) = delete;

  // Whether this connection, a Frame's source(), was lost since the last call. Losses of others,
  // such as a port scanner's, are dropped.
  bool take(int connection) {
    Frame event, endpoint;
    bool lost = false;
    while (events_.receive(event)) {
      events_.receive(endpoint);  // ZeroMQ delivers all frames of a message at once
      std::uint16_t number;
      std::int32_t value;  // the connection's file descriptor, where the event has one
      std::memcpy(&number, event.data(), sizeof number);
      std::memcpy(&value, event.data() + sizeof number, sizeof value);
      if (number == ZMQ_EVENT_ACCEPTED) open_.push_back(value);
      if (number == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) has_peer_ = true;
      if (number == ZMQ_EVENT_DISCONNECTED) {
        std::erase(open_, value);
        has_peer_ = false;
        lost |= value == connection;
      }
    }
    return lost;
  }

  // Of a bound socket whose monitor has kAll: its only connection, once ZeroMQ has greeted the peer
  // on it. None while there are several, because the event of a greeting does not name its
  // connection. As of the last take().
  std::optional<int> only_connection() const {
    return has_peer_ && open_.size() == 1 ? std::optional(open_.front()) : std::nullopt;
  }

  zmq_pollitem_t readable() const { return events_.readable(); }

 private:
  Socket& watched_;
  Socket events_;
  std::vector<int> open_;
  bool has_peer_ = false;
};

}  // namespace sut
