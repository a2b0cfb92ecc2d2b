#pragma once

#include <zmq.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "socket.h"

namespace sut {

// Reports a lost connection of a socket, even where the peer reconnects at once and ZeroMQ
// continues as if nothing had been lost. Used by the socket's thread; must not outlive the socket.
class DisconnectMonitor {
 public:
  DisconnectMonitor(const Context& context, Socket& watched)
      : watched_(watched), events_(context, ZMQ_PAIR) {
    const std::string endpoint =
        "inproc://monitor-" + std::to_string(reinterpret_cast<std::uintptr_t>(watched.handle()));
    if (zmq_socket_monitor(watched.handle(), endpoint.c_str(), ZMQ_EVENT_DISCONNECTED) != 0)
      throw SocketError("zmq_socket_monitor");
    events_.connect(endpoint);
  }
  // If a monitor is still on when its reader closes, the next event blocks ZeroMQ's I/O thread and
  // every socket with it.
  ~DisconnectMonitor() { zmq_socket_monitor(watched_.handle(), nullptr, 0); }
  DisconnectMonitor(const DisconnectMonitor&) = delete;
  DisconnectMonitor& operator=(const DisconnectMonitor&) = delete;

  // Whether this connection, a Frame's source(), was lost since the last call. Losses of others,
  // such as a port scanner's, are dropped.
  bool take(int connection) {
    Frame event, endpoint;
    bool lost = false;
    while (events_.receive(event)) {
      events_.receive(endpoint);  // ZeroMQ delivers all frames of a message at once
      std::int32_t closed;        // follows the event's 16-bit number
      std::memcpy(&closed, event.data() + sizeof(std::uint16_t), sizeof closed);
      lost |= closed == connection;
    }
    return lost;
  }

  zmq_pollitem_t readable() const { return events_.readable(); }

 private:
  Socket& watched_;
  Socket events_;
};

}  // namespace sut
