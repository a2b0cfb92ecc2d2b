#include "replica_link.h"

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <utility>

#include "curve.h"
#include "hello.h"

namespace sut {
namespace {

using namespace protocol;

// A link counts as lost when no heartbeat was answered for this long. libzmq answers on its own
// thread, so a busy engine does not look like a lost one.
constexpr int kHeartbeatIntervalMs = 2'000;
constexpr int kHeartbeatTimeoutMs = 10'000;

// A connection whose peer has not proved its key by then is closed.
constexpr int kHandshakeMs = 3'000;

// The longest frame of a handshake: an engine sends a HELLO, a READY and its ready response, of
// less than 1 kB each.
constexpr std::size_t kMaxHandshakeBytes = 64 << 10;

// Of the context and the Admission, and for connections of strangers.
constexpr std::size_t kOtherSockets = 16;
constexpr std::size_t kOtherDescriptors = 64;

// Reads the remaining frames of a message.
void skip_rest(Socket& socket, Frame& frame) {
  while (frame.has_more() && socket.receive(frame)) {
  }
}

}  // namespace

ReplicaLink::ReplicaLink(const Context& context, const Options& options)
    : handshake_(context, ZMQ_ROUTER),
      input_(context, ZMQ_ROUTER),
      output_(context, ZMQ_PULL),
      handshake_lost_(context, handshake_, ConnectionMonitor::kBound),
      input_lost_(context, input_, ConnectionMonitor::kBound),
      output_lost_(context, output_, ConnectionMonitor::kBound) {
  input_.set(ZMQ_ROUTER_MANDATORY, 1);
  for (Socket* socket : {&input_, &output_}) {
    socket->set(ZMQ_HEARTBEAT_IVL, kHeartbeatIntervalMs);
    socket->set(ZMQ_HEARTBEAT_TIMEOUT, kHeartbeatTimeoutMs);
  }
  const auto bind = [&](Socket& socket, int port, std::size_t max_bytes) {
    if (!options.secret_key.empty())
      curve::require_authentication(socket, options.secret_key, options.domain);
    socket.set(ZMQ_HANDSHAKE_IVL, kHandshakeMs);
    if (max_bytes > 0) socket.set_max_frame_bytes(max_bytes);
    return socket.bind(options.host, port);
  };
  endpoints_ = {.handshake = bind(handshake_, options.ports.handshake, kMaxHandshakeBytes),
                .input = bind(input_, options.ports.input, kMaxHandshakeBytes),
                .output = bind(output_, options.ports.output, options.max_output_bytes)};
}

void ReplicaLink::serve_handshake() {
  Frame identity;
  while (handshake_.receive(identity)) {
    if (!identity.has_more()) continue;
    Frame message;
    handshake_.receive(message);
    const bool hello = is_hello(message.bytes());
    skip_rest(handshake_, message);
    if (!hello || std::exchange(said_hello_, true)) continue;
    Frame reply(addresses_message(endpoints_.input, endpoints_.output));
    handshake_.send(identity, true);
    handshake_.send(reply, false);
  }
}

std::optional<std::string> ReplicaLink::receive_ready() {
  if (adopted_) return receive_adopted();
  Frame identity;
  std::optional<std::string> response;
  while (input_.receive(identity)) {
    if (!identity.has_more()) continue;
    Frame message;
    input_.receive(message);
    if (identity_.empty()) {
      identity_ = identity.text();
      response = message.text();
      input_lost_.take(kUnknown);  // earlier connections, whose numbers are reused
      input_source_ = message.source();
    }
    skip_rest(input_, message);
  }
  return response;
}

std::optional<std::string> ReplicaLink::receive_adopted() {
  Frame ignored;
  while (input_.receive(ignored)) {
  }
  input_lost_.take(kUnknown);
  output_lost_.take(kUnknown);
  const std::optional<int> input = input_lost_.greeted();
  const std::optional<int> output = output_lost_.greeted();
  if (!input || !output) return std::nullopt;
  identity_ = protocol::kIdentity;
  input_source_ = *input;
  output_source_ = *output;
  return std::exchange(adopted_, std::nullopt);
}

bool ReplicaLink::receive_output(Frame& frame) {
  if (!output_.receive(frame)) return false;
  if (output_source_ == kUnknown)
    output_source_ = has_reconnected_output() ? kLost : frame.source();
  return true;
}

bool ReplicaLink::take_output_lost() {
  if (output_source_ == kUnknown) return has_reconnected_output();
  return output_lost_.take(output_source_);
}

bool ReplicaLink::has_reconnected_output() {
  output_lost_.take(kUnknown);
  return max_greeted_ > 0 && output_lost_.num_greeted() > max_greeted_;
}

void ReplicaLink::discard() {
  Frame frame;
  for (Socket* socket : {&handshake_, &input_, &output_})
    while (socket->receive(frame)) {
    }
  for (ConnectionMonitor* monitor : {&handshake_lost_, &input_lost_, &output_lost_})
    monitor->take(kUnknown);
}

bool ReplicaLink::send(const SampleStore::Request& request, RequestId id) {
  if (max_greeted_ == 0) {
    output_lost_.take(kUnknown);
    max_greeted_ = std::max(1, output_lost_.num_greeted());
  }
  Frame identity(identity_);
  Frame type({&kAddRequest, 1});
  Frame payload(request.bytes);
  write_request_id(id, payload.data() + request.id_offset);
  return input_.send(identity, true) && input_.send(type, true) && input_.send(payload, false);
}

ReplicaLinks::ReplicaLinks(const std::string& host, const FrontEndKeys& keys,
                           std::size_t max_output_bytes, const std::vector<ReplicaPorts>& ports) {
  if (keys.engines.empty()) throw std::invalid_argument("at least one replica is needed");
  if (keys.secret_key.empty()) throw std::invalid_argument("the front-end has no key");
  if (!ports.empty() && ports.size() != keys.engines.size())
    throw std::invalid_argument("ports must be those of every replica");
  make_room(keys.engines.size());
  admission_.emplace(context_, keys.engines);
  for (std::size_t i = 0; i < keys.engines.size(); ++i)
    open({.host = host,
          .ports = ports.empty() ? ReplicaPorts{} : ports[i],
          .secret_key = keys.secret_key,
          .domain = Admission::domain_of(i),
          .max_output_bytes = max_output_bytes});
}

ReplicaLinks::ReplicaLinks(const std::string& host, ForBenchmarks unauthenticated) {
  make_room(static_cast<std::size_t>(unauthenticated.num_replicas));
  for (int i = 0; i < unauthenticated.num_replicas; ++i)
    open({.host = host, .ports = {}, .secret_key = {}, .domain = {}});
}

void ReplicaLinks::make_room(std::size_t num_replicas) {
  const std::string user = "the sockets of " + std::to_string(num_replicas) + " replicas";
  reserve_descriptors(num_replicas * ReplicaLink::kNumDescriptors + kOtherDescriptors, user);
  const std::size_t num_sockets = num_replicas * ReplicaLink::kNumSockets + kOtherSockets;
  const int most = zmq_ctx_get(context_.handle(), ZMQ_SOCKET_LIMIT);
  if (num_sockets > static_cast<std::size_t>(most))
    throw LimitError(EMFILE, user + " are " + std::to_string(num_sockets) +
                                 ", and libzmq's limit (ZMQ_SOCKET_LIMIT) is " +
                                 std::to_string(most) + ": EMFILE");
  context_.set_max_sockets(num_sockets);
}

void ReplicaLinks::open(const ReplicaLink::Options& options) {
  try {
    links_.push_back(std::make_unique<ReplicaLink>(context_, options));
    endpoints_.push_back(links_.back()->endpoints());
  } catch (const SocketError& error) {
    if (error.code != EMFILE && error.code != ENFILE) throw;
    throw LimitError(error.code, "cannot open the sockets of replica " +
                                     std::to_string(links_.size()) +
                                     ", with a limit of file descriptors (RLIMIT_NOFILE) of " +
                                     std::to_string(descriptor_limit()) + ": " + error.what());
  }
}

const LinkEndpoints& ReplicaLinks::endpoints(int replica) const {
  return endpoints_.at(static_cast<std::size_t>(replica));
}

void ReplicaLinks::adopt(int replica, std::string ready_response) {
  if (taken_.load()) throw std::logic_error("a dispatcher already uses these links");
  links_.at(static_cast<std::size_t>(replica))->adopt(std::move(ready_response));
}

void ReplicaLinks::take() {
  if (taken_.exchange(true)) throw std::logic_error("a dispatcher already uses these links");
}

}  // namespace sut
