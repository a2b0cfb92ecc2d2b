#include "front_end.h"

#include <stdexcept>
#include <thread>
#include <utility>

#include "../clock.h"

namespace replay {
namespace {

using sut::now_ns;

constexpr std::int64_t kHandshakeTimeoutNs = 300'000'000'000;
constexpr std::chrono::milliseconds kHandshakeLinger{5000};
constexpr std::chrono::milliseconds kReconnectInterval{100};  // libzmq's

// Indexes of poll_items_. From kFirstConnection on, the events of connections_.
enum PollItem : std::size_t { kStopSignal, kAlarm, kSource, kFirstConnection };

bool happened(const zmq_pollitem_t& item) { return item.revents != 0; }

void check_deadline(std::int64_t deadline_ns, const std::string& what) {
  if (now_ns() >= deadline_ns) {
    throw std::runtime_error("no front-end answered at the " + what + " address for 300 s");
  }
}

}  // namespace

FrontEnd::FrontEnd(const std::string& handshake_address, bool reconnects,
                   const Connection::Keys& keys)
    : reconnects_(reconnects), keys_(keys) {
  handshake_.emplace(context_, ZMQ_DEALER, handshake_address, keys_, sut::protocol::kIdentity);
  poll_on({&*handshake_});
}

std::optional<Addresses> FrontEnd::send_hello() {
  handshake_->send(hello_message());
  const std::int64_t deadline_ns = now_ns() + kHandshakeTimeoutNs;
  sut::Frame reply;
  while (!receive(reply)) {
    check_deadline(deadline_ns, "handshake");
    if (!wait(deadline_ns)) return std::nullopt;
  }
  return decode_addresses(reply.bytes());
}

bool FrontEnd::become_ready(const Addresses& addresses, std::span<const char> ready_response) {
  addresses_ = addresses;
  connect_input();
  connect_output();
  poll_on_both();
  const std::int64_t deadline_ns = now_ns() + kHandshakeTimeoutNs;
  while (!input_->has_peer() || !output_->has_peer()) {
    check_deadline(deadline_ns, "input or output");
    if (!wait(deadline_ns)) return false;
  }
  input_->send(ready_response);
  handshake_->send(ready_message());
  handshake_->set_linger(kHandshakeLinger);
  handshake_.reset();
  return true;
}

void FrontEnd::reset_input() {
  input_.reset();
  std::this_thread::sleep_for(kReconnectInterval);
  connect_input();
  poll_on_both();
}

void FrontEnd::reset_output() {
  output_.reset();
  std::this_thread::sleep_for(kReconnectInterval);
  connect_output();
  poll_on_both();
}

bool FrontEnd::wait(std::int64_t until_ns) {
  if (until_ns != kForever && until_ns != kNotAtAll && until_ns != alarm_at_ns_) {
    alarm_.set(alarm_at_ns_ = until_ns);
  }
  const int timeout_ms = until_ns == kNotAtAll ? 0 : -1;
  if (zmq_poll(poll_items_.data(), static_cast<int>(poll_items_.size()), timeout_ms) == -1) {
    if (zmq_errno() == EINTR) return true;
    throw sut::SocketError("zmq_poll");
  }
  if (poll_items_[kAlarm].revents != 0) {
    alarm_.clear();
    alarm_at_ns_ = 0;
  }
  if (happened(poll_items_[kStopSignal])) {
    reason_ = "received a stop signal";
    return false;
  }
  if (lost_peer() && !outlives_front_end()) {
    reason_ = "front-end disconnected";
    return false;
  }
  return true;
}

bool FrontEnd::lost_peer() {
  bool lost = false;
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    if (happened(poll_items_[kFirstConnection + i])) lost |= connections_[i]->take_lost_peer();
  }
  return lost;
}

void FrontEnd::poll_on(std::vector<Connection*> connections) {
  connections_ = std::move(connections);
  poll_items_ = {{nullptr, stop_signal_.fd(), ZMQ_POLLIN, 0},
                 {nullptr, alarm_.fd(), ZMQ_POLLIN, 0},
                 connections_.front()->readable()};
  for (const Connection* connection : connections_) poll_items_.push_back(connection->events());
}

}  // namespace replay
