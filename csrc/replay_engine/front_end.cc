#include "front_end.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <thread>

#include "../clock.h"

namespace replay {
namespace {

using sut::now_ns;

constexpr std::int64_t kHandshakeTimeoutNs = 300'000'000'000;
constexpr std::chrono::milliseconds kHandshakeLinger{5000};
constexpr std::chrono::milliseconds kReconnectInterval{100};  // libzmq's

// Indexes of poll_items_. From kFirstLoss on, monitors of connections.
enum PollItem : std::size_t { kStopSignal, kAlarm, kSource, kFirstLoss };

}  // namespace

FrontEnd::FrontEnd(const std::string& handshake_address, bool reconnects,
                   const Connection::Keys& keys)
    : reconnects_(reconnects), keys_(keys) {
  handshake_.emplace(context_, ZMQ_DEALER, handshake_address, keys_, sut::protocol::kIdentity);
  poll_on(*handshake_, std::array{handshake_->lost()});
}

std::optional<Addresses> FrontEnd::send_hello() {
  handshake_->send(hello_message());
  const std::int64_t deadline_ns = now_ns() + kHandshakeTimeoutNs;
  sut::Frame reply;
  while (!receive(reply)) {
    if (now_ns() >= deadline_ns) {
      throw std::runtime_error("no front-end answered at the handshake address for 300 s");
    }
    if (!wait(deadline_ns)) return std::nullopt;
  }
  return decode_addresses(reply.bytes());
}

void FrontEnd::become_ready(const Addresses& addresses, std::span<const char> ready_response) {
  addresses_ = addresses;
  connect_input();
  connect_output();
  poll_on_both();
  input_->send(ready_response);
  handshake_->send(ready_message());
  handshake_->set_linger(kHandshakeLinger);
  handshake_.reset();
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
  const auto happened = [](const zmq_pollitem_t& item) { return item.revents != 0; };
  if (happened(poll_items_[kStopSignal])) {
    reason_ = "received a stop signal";
    return false;
  }
  if (std::any_of(poll_items_.begin() + kFirstLoss, poll_items_.end(), happened)) {
    if (!outlives_front_end()) {
      reason_ = "front-end disconnected";
      return false;
    }
    input_->forget_losses();
    output_->forget_losses();
  }
  return true;
}

void FrontEnd::poll_on(Connection& source, std::span<const zmq_pollitem_t> losses) {
  source_ = &source;
  poll_items_ = {{nullptr, stop_signal_.fd(), ZMQ_POLLIN, 0},
                 {nullptr, alarm_.fd(), ZMQ_POLLIN, 0},
                 source.readable()};
  poll_items_.insert(poll_items_.end(), losses.begin(), losses.end());
}

}  // namespace replay
