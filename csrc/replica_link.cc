#include "replica_link.h"

#include <cstring>
#include <msgpack.hpp>

namespace sut {
namespace {

constexpr char kAdd = '\x00';
constexpr char kAbort = '\x01';

// A cut link is noticed when this long no heartbeat was answered. libzmq answers on its own
// thread, so a busy engine does not look like a lost one.
constexpr int kHeartbeatIntervalMs = 2'000;
constexpr int kHeartbeatTimeoutMs = 10'000;

std::string addresses_message(const std::string& input, const std::string& output) {
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> packer(buffer);
  packer.pack_map(2);
  packer.pack("addresses");
  packer.pack_map(2);
  packer.pack("inputs");
  packer.pack_array(1);
  packer.pack(input);
  packer.pack("outputs");
  packer.pack_array(1);
  packer.pack(output);
  packer.pack("parallel_config");
  packer.pack_map(0);
  return {buffer.data(), buffer.size()};
}

bool is_hello(std::span<const char> message) {
  try {
    const msgpack::object_handle handle = msgpack::unpack(message.data(), message.size());
    const msgpack::object& object = handle.get();
    if (object.type != msgpack::type::MAP) return false;
    for (const msgpack::object_kv& pair : object.via.map) {
      if (pair.key.type != msgpack::type::STR || pair.val.type != msgpack::type::STR) continue;
      if (pair.key.as<std::string>() == "status") return pair.val.as<std::string>() == "HELLO";
    }
  } catch (const msgpack::unpack_error&) {
  }
  return false;  // a stranger on the port; it gets no answer
}

// Reads every frame that is left of a message, so that the next receive starts at a message.
void skip_rest(Socket& socket, Frame& frame) {
  while (frame.has_more() && socket.receive(frame)) {
  }
}

Socket monitor_of(const Context& context, Socket& socket) {
  const std::string endpoint =
      "inproc://monitor-" + std::to_string(reinterpret_cast<std::uintptr_t>(socket.handle()));
  if (zmq_socket_monitor(socket.handle(), endpoint.c_str(), ZMQ_EVENT_DISCONNECTED) != 0)
    throw SocketError("zmq_socket_monitor");
  Socket monitor(context, ZMQ_PAIR);
  if (zmq_connect(monitor.handle(), endpoint.c_str()) != 0) throw SocketError("zmq_connect");
  return monitor;
}

}  // namespace

ReplicaLink::ReplicaLink(const Context& context, const std::string& host)
    : handshake_(context, ZMQ_ROUTER),
      input_(context, ZMQ_ROUTER),
      output_(context, ZMQ_PULL),
      monitor_(monitor_of(context, input_)) {
  input_.set(ZMQ_ROUTER_MANDATORY, 1);
  input_.set(ZMQ_HEARTBEAT_IVL, kHeartbeatIntervalMs);
  input_.set(ZMQ_HEARTBEAT_TIMEOUT, kHeartbeatTimeoutMs);
  handshake_endpoint_ = handshake_.bind_any_port(host);
  input_endpoint_ = input_.bind_any_port(host);
  output_endpoint_ = output_.bind_any_port(host);
}

void ReplicaLink::serve_handshake() {
  Frame identity;
  while (handshake_.receive(identity)) {
    if (!identity.has_more()) continue;
    Frame message;
    handshake_.receive(message);
    const bool hello = is_hello(message.bytes());
    skip_rest(handshake_, message);
    if (!hello) continue;
    const std::string text = addresses_message(input_endpoint_, output_endpoint_);
    Frame reply(text.size());
    std::memcpy(reply.data(), text.data(), text.size());
    handshake_.send(identity, true);
    handshake_.send(reply, false);
  }
}

std::optional<std::string> ReplicaLink::receive_ready() {
  Frame identity;
  std::optional<std::string> response;
  while (input_.receive(identity)) {
    if (!identity.has_more()) continue;
    Frame message;
    input_.receive(message);
    if (identity_.empty()) {
      identity_ = identity.text();
      response = message.text();
    }
    skip_rest(input_, message);
  }
  return response;
}

bool ReplicaLink::send(const SampleStore::Request& request, RequestId id) {
  Frame payload(request.bytes.size());
  std::memcpy(payload.data(), request.bytes.data(), request.bytes.size());
  write_request_id(id, payload.data() + request.id_offset);
  return send_frames(kAdd, payload);
}

bool ReplicaLink::probe() {
  constexpr char kEmptyArray = '\x90';
  Frame payload(1);
  *payload.data() = kEmptyArray;
  return send_frames(kAbort, payload);
}

bool ReplicaLink::send_frames(char type, Frame& payload) {
  Frame identity(identity_.size());
  std::memcpy(identity.data(), identity_.data(), identity_.size());
  Frame type_frame(1);
  *type_frame.data() = type;
  return input_.send(identity, true) && input_.send(type_frame, true) &&
         input_.send(payload, false);
}

bool ReplicaLink::take_disconnect() {
  Frame frame;
  bool disconnected = false;
  while (monitor_.receive(frame)) {
    skip_rest(monitor_, frame);
    disconnected = true;
  }
  return disconnected;
}

}  // namespace sut
