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
// continues as if nothing had been lost, and counts connections that were refused. Used by the
// socket's thread; must not outlive the socket.
class ConnectionMonitor {
 public:
  // Of a bound socket, for take(); of a connecting one, for take_lost_peer().
  static constexpr int kBound =
      ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED;
  static constexpr int kConnecting = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED;

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
    bool lost = false;
    while (const auto event = next()) {
      const auto [number, value] = *event;
      if (number == ZMQ_EVENT_ACCEPTED) {
        ++num_refused_;
        open_.push_back(value);
      }
      if (number == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
        --num_refused_;
        ++num_greeted_;
        candidates_ = open_;
      }
      if (number == ZMQ_EVENT_DISCONNECTED) {
        std::erase(open_, value);
        std::erase(candidates_, value);
        lost |= value == connection;
      }
    }
    return lost;
  }

  // Of a bound socket, as of the last take(): the connections so far whose peer has not proved its
  // key. A peer that is about to counts too.
  std::int64_t num_refused() const { return num_refused_; }

  // Of a bound socket, as of the last take(): the connections so far whose peer has proved its key.
  int num_greeted() const { return num_greeted_; }

  // Of a bound socket too: the connection whose peer has proved its key. None while it can be one of
  // several, because the event of a greeting does not name its connection.
  std::optional<int> greeted() const {
    return candidates_.size() == 1 ? std::optional(candidates_.front()) : std::nullopt;
  }

  // Of a connecting socket: whether a peer that had greeted was lost since the last call. An attempt
  // to connect that fails loses nobody.
  bool take_lost_peer() {
    bool lost = false;
    while (const auto event = next()) {
      if (event->number == ZMQ_EVENT_DISCONNECTED) lost |= has_peer_;
      has_peer_ = event->number == ZMQ_EVENT_HANDSHAKE_SUCCEEDED;
    }
    return lost;
  }

  // Of such a socket, as of that call: whether it has a peer that has greeted.
  bool has_peer() const { return has_peer_; }

  zmq_pollitem_t readable() const { return events_.readable(); }
  int descriptor() const { return events_.descriptor(); }

 private:
  struct Event {
    std::uint16_t number;
    std::int32_t value;  // the connection's file descriptor, where the event has one
  };

  std::optional<Event> next() {
    Frame frame, endpoint;
    if (!events_.receive(frame)) return std::nullopt;
    events_.receive(endpoint);  // ZeroMQ delivers all frames of a message at once
    Event event;
    std::memcpy(&event.number, frame.data(), sizeof event.number);
    std::memcpy(&event.value, frame.data() + sizeof event.number, sizeof event.value);
    return event;
  }

  Socket& watched_;
  Socket events_;
  std::vector<int> open_;
  std::vector<int> candidates_;  // those of open_ that the last greeting can be of
  std::int64_t num_refused_ = 0;
  int num_greeted_ = 0;
  bool has_peer_ = false;
};

}  // namespace sut
