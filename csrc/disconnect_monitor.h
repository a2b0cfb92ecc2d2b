#pragma once

#include <zmq.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "socket.h"

namespace sut {

// Tells that a connection of a socket is gone, even where the peer comes back at once and ZeroMQ
// goes on as if nothing had been lost. Used by the socket's thread; lives no longer than it.
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
  // A monitor that is still on when its reader closes blocks ZeroMQ's I/O thread, and every
  // socket with it, at the next event.
  ~DisconnectMonitor() { zmq_socket_monitor(watched_.handle(), nullptr, 0); }
  DisconnectMonitor(const DisconnectMonitor&) = delete;
  DisconnectMonitor& operator=(const DisconnectMonitor&) = delete;

  // True if this connection was lost since the last call: a Frame's source(). Others, as of a
  // stranger that knocked on the port, are forgotten.
  bool take(int connection) {
    Frame event, endpoint;
    bool lost = false;
    while (events_.receive(event)) {
      events_.receive(endpoint);  // ZeroMQ delivers a message's frames all at once
      std::int32_t closed;        // after 16 bits that name the event
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
