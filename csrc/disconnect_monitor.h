#pragma once

#include <zmq.h>

#include <cstdint>
#include <string>

#include "socket.h"

namespace sut {

// Tells that a peer of a socket is gone. Used by the socket's thread; lives no longer than it.
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

  // True if a connection was lost since the last call: a peer's, or a stranger's at the port.
  bool take() {
    Frame frame;
    bool lost = false;
    while (events_.receive(frame)) lost = true;
    return lost;
  }

  zmq_pollitem_t readable() const { return events_.readable(); }

 private:
  Socket& watched_;
  Socket events_;
};

}  // namespace sut
