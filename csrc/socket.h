#pragma once

#include <zmq.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace sut {

// A failed libzmq call, with libzmq's error text and, of the system's errors, the name.
class SocketError : public std::runtime_error {
 public:
  explicit SocketError(const std::string& what) : SocketError(what, zmq_errno()) {}

  const int code;  // an errno

 private:
  SocketError(const std::string& what, int error)
      : std::runtime_error(what + ": " + zmq_strerror(error) + name_of(error)), code(error) {}

  static std::string name_of(int error) {
    const char* const name = strerrorname_np(error);
    return name ? std::string(" (") + name + ")" : "";
  }
};

class Context {
 public:
  Context() : handle_(zmq_ctx_new()) {
    if (!handle_) throw SocketError("zmq_ctx_new");
  }
  // Blocks until every closed socket has sent what its linger (0 unless set) allows.
  ~Context() {
    while (zmq_ctx_term(handle_) != 0 && zmq_errno() == EINTR) {
    }
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  void* handle() const { return handle_; }

  // How many sockets there may be, those of monitors included; initially 1,023. Before the first.
  void set_max_sockets(std::size_t count) {
    if (zmq_ctx_set(handle_, ZMQ_MAX_SOCKETS, static_cast<int>(count)) != 0)
      throw SocketError("zmq_ctx_set");
  }

 private:
  void* handle_;
};

// One received or outgoing frame. Its bytes are valid until the next receive or destruction.
class Frame {
 public:
  Frame() { zmq_msg_init(&message_); }
  explicit Frame(std::size_t size) {
    if (zmq_msg_init_size(&message_, size) != 0) throw SocketError("zmq_msg_init_size");
  }
  explicit Frame(std::span<const char> bytes) : Frame(bytes.size()) {
    if (!bytes.empty()) std::memcpy(data(), bytes.data(), bytes.size());
  }
  ~Frame() { zmq_msg_close(&message_); }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;

  char* data() { return static_cast<char*>(zmq_msg_data(&message_)); }
  std::size_t size() const { return zmq_msg_size(&message_); }
  bool has_more() const { return zmq_msg_more(&message_) != 0; }
  // The connection it arrived on, as a file descriptor; -1 for an outgoing frame.
  int source() const { return zmq_msg_get(&message_, ZMQ_SRCFD); }
  std::span<const char> bytes() { return {data(), size()}; }
  std::string text() { return {data(), size()}; }
  zmq_msg_t* handle() { return &message_; }

 private:
  zmq_msg_t message_;
};

// A socket is used by one thread at a time. No call below waits.
class Socket {
 public:
  Socket(const Context& context, int type) : handle_(zmq_socket(context.handle(), type)) {
    if (!handle_) throw SocketError("zmq_socket");
    try {
      set(ZMQ_LINGER, 0);
      set(ZMQ_SNDHWM, 0);
      set(ZMQ_RCVHWM, 0);
    } catch (...) {
      zmq_close(handle_);
      throw;
    }
  }
  ~Socket() {
    if (handle_) zmq_close(handle_);
  }
  Socket(Socket&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Socket& operator=(Socket&&) = delete;

  void* handle() const { return handle_; }

  void set(int option, int value) {
    if (zmq_setsockopt(handle_, option, &value, sizeof value) != 0)
      throw SocketError("zmq_setsockopt");
  }

  void set(int option, std::string_view value) {
    if (zmq_setsockopt(handle_, option, value.data(), value.size()) != 0)
      throw SocketError("zmq_setsockopt");
  }

  // A peer's connection ends when it sends a longer frame.
  void set_max_frame_bytes(std::size_t size) {
    const auto limit = static_cast<std::int64_t>(size);
    if (zmq_setsockopt(handle_, ZMQ_MAXMSGSIZE, &limit, sizeof limit) != 0)
      throw SocketError("zmq_setsockopt");
  }

  void connect(const std::string& endpoint) {
    if (zmq_connect(handle_, endpoint.c_str()) != 0)
      throw SocketError("cannot connect to " + endpoint);
  }

  static constexpr int kAnyPort = 0;

  // Binds to a port and returns the endpoint, tcp://HOST:PORT.
  std::string bind(const std::string& host, int port = kAnyPort) {
    const std::string wanted = port == kAnyPort ? "*" : std::to_string(port);
    if (zmq_bind(handle_, ("tcp://" + host + ":" + wanted).c_str()) != 0)
      throw SocketError("cannot bind a socket on host '" + host + "'" +
                        (port == kAnyPort ? "" : ", port " + wanted));
    char endpoint[256];
    std::size_t size = sizeof endpoint;
    if (zmq_getsockopt(handle_, ZMQ_LAST_ENDPOINT, endpoint, &size) != 0)
      throw SocketError("zmq_getsockopt");
    return endpoint;
  }

  // Readable when the socket has news; see Poller.
  int descriptor() const {
    int fd = -1;
    std::size_t size = sizeof fd;
    if (zmq_getsockopt(handle_, ZMQ_FD, &fd, &size) != 0) throw SocketError("zmq_getsockopt");
    return fd;
  }

  // Poll this for input.
  zmq_pollitem_t readable() const { return {handle_, 0, ZMQ_POLLIN, 0}; }

  // False if nothing has arrived.
  bool receive(Frame& frame) {
    for (;;) {
      if (zmq_msg_recv(frame.handle(), handle_, ZMQ_DONTWAIT) >= 0) return true;
      if (zmq_errno() == EAGAIN) return false;
      if (zmq_errno() != EINTR) throw SocketError("zmq_msg_recv");
    }
  }

  // False if a ROUTER has no such peer.
  bool send(Frame& frame, bool more) {
    const int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
    for (;;) {
      if (zmq_msg_send(frame.handle(), handle_, flags) >= 0) return true;
      if (zmq_errno() == EHOSTUNREACH || zmq_errno() == EAGAIN) return false;
      if (zmq_errno() != EINTR) throw SocketError("zmq_msg_send");
    }
  }

 private:
  void* handle_;
};

}  // namespace sut
