#pragma once

#include <zmq.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace replay {

struct ZmqError : std::runtime_error {
  explicit ZmqError(const std::string& what)
      : std::runtime_error(what + ": " + zmq_strerror(zmq_errno())) {}
};

// The destructor blocks until every closed socket has sent what its linger allows.
class ZmqContext {
 public:
  ZmqContext() : handle_(zmq_ctx_new()) {
    if (handle_ == nullptr) throw ZmqError("zmq_ctx_new");
  }
  ~ZmqContext() {
    while (zmq_ctx_term(handle_) == -1 && zmq_errno() == EINTR) {
    }
  }
  ZmqContext(const ZmqContext&) = delete;
  ZmqContext& operator=(const ZmqContext&) = delete;
  void* handle() const { return handle_; }

 private:
  void* handle_;
};

class ZmqMessage {
 public:
  ZmqMessage() { zmq_msg_init(&message_); }
  ~ZmqMessage() { zmq_msg_close(&message_); }
  ZmqMessage(const ZmqMessage&) = delete;
  ZmqMessage& operator=(const ZmqMessage&) = delete;

  std::span<const char> bytes() {
    return {static_cast<const char*>(zmq_msg_data(&message_)), zmq_msg_size(&message_)};
  }
  bool more() const { return zmq_msg_more(&message_) != 0; }
  zmq_msg_t* handle() { return &message_; }

 private:
  zmq_msg_t message_;
};

// A connecting socket with a watch on its connection. Calls throw ZmqError.
class ZmqSocket {
 public:
  // The peer is taken for lost when it closes the connection, or is silent for 30 s.
  ZmqSocket(ZmqContext& context, int type, std::string_view identity = {})
      : handle_(open(context, type)), monitor_(open(context, ZMQ_PAIR)) {
    set(ZMQ_LINGER, 0);
    set(ZMQ_SNDHWM, 0);
    set(ZMQ_RCVHWM, 0);
    set(ZMQ_HEARTBEAT_IVL, 10'000);
    set(ZMQ_HEARTBEAT_TIMEOUT, 30'000);
    if (!identity.empty()) {
      check(zmq_setsockopt(handle(), ZMQ_ROUTING_ID, identity.data(), identity.size()), "identity");
    }
    const std::string address = "inproc://lost-" + std::to_string(std::uintptr_t(handle()));
    check(zmq_socket_monitor(handle(), address.c_str(), ZMQ_EVENT_DISCONNECTED), "zmq monitor");
    check(zmq_connect(monitor_.get(), address.c_str()), "zmq monitor");
  }

  // A monitor that is still on when its reader is closed blocks ZeroMQ's I/O thread, and every
  // socket with it, at the next event.
  ~ZmqSocket() { zmq_socket_monitor(handle(), nullptr, 0); }
  ZmqSocket(const ZmqSocket&) = delete;
  ZmqSocket& operator=(const ZmqSocket&) = delete;

  void connect(const std::string& address) {
    if (address.starts_with("tcp://[")) set(ZMQ_IPV6, 1);
    check(zmq_connect(handle(), address.c_str()), "cannot connect to " + address);
  }

  // What was sent may still leave for so long after the socket is destroyed.
  void set_linger(std::chrono::milliseconds linger) {
    set(ZMQ_LINGER, static_cast<int>(linger.count()));
  }

  // Copies the frame; never blocks, as there is no high-water mark.
  void send(std::span<const char> frame) {
    check(zmq_send(handle(), frame.data(), frame.size(), ZMQ_DONTWAIT), "cannot send");
  }

  // False if there is nothing to read.
  bool receive(ZmqMessage& message) {
    if (zmq_msg_recv(message.handle(), handle(), ZMQ_DONTWAIT) != -1) return true;
    if (zmq_errno() == EAGAIN || zmq_errno() == EINTR) return false;
    throw ZmqError("cannot receive");
  }

  // To poll for input, and for the loss of the peer.
  zmq_pollitem_t readable() const { return {handle(), 0, ZMQ_POLLIN, 0}; }
  zmq_pollitem_t lost() const { return {monitor_.get(), 0, ZMQ_POLLIN, 0}; }

 private:
  struct Close {
    void operator()(void* socket) const { zmq_close(socket); }
  };
  using Handle = std::unique_ptr<void, Close>;

  static Handle open(ZmqContext& context, int type) {
    Handle handle(zmq_socket(context.handle(), type));
    if (handle == nullptr) throw ZmqError("zmq_socket");
    return handle;
  }

  static void check(int result, const std::string& what) {
    if (result == -1) throw ZmqError(what);
  }

  void* handle() const { return handle_.get(); }

  void set(int option, int value) {
    check(zmq_setsockopt(handle(), option, &value, sizeof value), "zmq_setsockopt");
  }

  Handle handle_;
  Handle monitor_;
};

}  // namespace replay
