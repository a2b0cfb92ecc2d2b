#include "dispatcher.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>

namespace sut {
namespace {

constexpr std::int64_t kTickMs = 250;  // how often deadlines are looked at while work is in flight
constexpr std::int64_t kNsPerMs = 1'000'000;

// How long a lost connection is looked into before it is put down to a stranger on the port:
// ROUTER forgets a peer some time after the disconnect is told.
constexpr std::int64_t kSuspectNs = 2'000 * kNsPerMs;

// A wait longer than this is for ever, and fits every clock.
constexpr double kForeverS = 1e8;

std::int64_t to_ns(double seconds) {
  return static_cast<std::int64_t>(std::min(seconds, kForeverS) * 1e9);
}

std::string seconds_text(double seconds) {
  return std::to_string(std::llround(seconds)) + " s";
}

std::string replica_text(int index) { return "replica " + std::to_string(index); }

}  // namespace

Dispatcher::Dispatcher(std::shared_ptr<ReplicaLinks> links,
                       std::shared_ptr<const SampleStore> store, WireLayout layout,
                       Options options)
    : links_(std::move(links)),
      store_(std::move(store)),
      layout_(std::move(layout)),
      options_(std::move(options)),
      in_flight_(options_.max_output_tokens) {
  if (options_.max_output_tokens < 1)
    throw std::invalid_argument("max_output_tokens must be at least 1");
  if (!(options_.sample_deadline_s > 0) || !(options_.stall_deadline_s > 0))
    throw std::invalid_argument("deadlines must be positive");

  links_->take();
  for (std::size_t i = 0; i < links_->size(); ++i) {
    replicas_.push_back(std::make_unique<Replica>((*links_)[i]));
    for (const zmq_pollitem_t& item : (*links_)[i].poll_items()) poll_items_.push_back(item);
  }
  poll_items_.push_back({nullptr, wake_up_.fd(), ZMQ_POLLIN, 0});
  io_thread_ = std::thread([this] { run(); });
}

Dispatcher::~Dispatcher() { close(); }

void Dispatcher::close() {
  std::lock_guard lock(close_mutex_);
  closing_.store(true);
  wake_up_.ring();
  if (io_thread_.joinable()) io_thread_.join();
}

bool Dispatcher::wait_ready(double timeout_s) {
  return wait(
      [this] {
        for (const auto& replica : replicas_)
          if (!replica->ready_response) return false;
        return true;
      },
      timeout_s);
}

std::optional<std::string> Dispatcher::ready_response(int replica) const {
  std::lock_guard lock(state_mutex_);
  return replicas_.at(static_cast<std::size_t>(replica))->ready_response;
}

void Dispatcher::set_credit(int replica, std::size_t max_in_flight) {
  replicas_.at(static_cast<std::size_t>(replica))->credit.store(max_in_flight);
  wake_up_.ring();
}

void Dispatcher::issue(std::span<const Sample> samples, ResponseSink& sink, int replica) {
  if (replica < kAnyReplica || replica >= static_cast<int>(replicas_.size()))
    throw std::out_of_range("no " + replica_text(replica));
  for (const Sample& sample : samples)
    if (sample.index >= store_->size())
      throw std::out_of_range("sample " + std::to_string(sample.index) + " of " +
                              std::to_string(store_->size()));
  const std::int64_t now = now_ns();
  bool was_empty;
  {
    std::lock_guard lock(incoming_mutex_);
    if (failed() || closing_.load()) return;
    was_empty = incoming_.empty();
    for (const Sample& sample : samples) incoming_.push_back({sample, &sink, now, replica});
    stats_.issued.fetch_add(static_cast<std::int64_t>(samples.size()), std::memory_order_relaxed);
  }
  // If some stood there already, whoever put them there has rung and they were not taken yet.
  if (was_empty) wake_up_.ring();
}

void Dispatcher::fail(Failure failure) {
  {
    std::lock_guard lock(state_mutex_);
    if (failure_) return;
    failure_ = std::move(failure);
    failed_.store(true, std::memory_order_release);
  }
  wake_up_.ring();
}

std::optional<Failure> Dispatcher::failure() const {
  std::lock_guard lock(state_mutex_);
  return failure_;
}

bool Dispatcher::stopped() const {
  std::lock_guard lock(state_mutex_);
  return stopped_;
}

bool Dispatcher::wait(const std::function<bool()>& done, double timeout_s) {
  if (!(timeout_s >= 0)) throw std::invalid_argument("a timeout can't be negative");
  std::unique_lock lock(state_mutex_);
  state_changed_.wait_for(lock, std::chrono::duration<double>(std::min(timeout_s, kForeverS)),
                          [&] { return stopped_ || done(); });
  return done();
}

void Dispatcher::notify() {
  // Taking the lock orders this after a waiter's look at done() and before its sleep.
  { std::lock_guard lock(state_mutex_); }
  state_changed_.notify_all();
}

Snapshot Dispatcher::stats() const {
  const std::int64_t now = now_ns();
  Snapshot s;
  s.elapsed_ns = now - stats_.since_ns.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < replicas_.size(); ++i) {
    s.replicas.push_back(replicas_[i]->stats.snapshot(static_cast<int>(i), now));
    const ReplicaSnapshot& replica = s.replicas.back();
    s.admitted += replica.admitted;
    s.completed += replica.completed;
    s.prompt_tokens += replica.prompt_tokens;
    s.output_tokens += replica.output_tokens;
  }
  s.issued = stats_.issued.load(std::memory_order_relaxed);
  s.failed = stats_.failed.get();
  s.queued = std::max<std::int64_t>(0, s.issued - s.admitted - stats_.dropped.get());
  s.first_tokens = stats_.first_tokens.get();
  s.ttft_ns = quantiles_of(stats_.ttft_ns.copy());
  s.tpot_ns = quantiles_of(stats_.tpot_ns.copy());
  return s;
}

void Dispatcher::reset_stats() {
  std::lock_guard lock(incoming_mutex_);
  const Snapshot s = stats();
  if (s.issued != s.completed)
    throw std::logic_error("reset_stats() while samples are queued or in flight");
  stats_.issued.store(0);
  stats_.first_tokens.set(0);
  stats_.ttft_ns.clear();
  stats_.tpot_ns.clear();
  for (const auto& replica : replicas_) replica->stats.reset();
  stats_.since_ns.store(now_ns());
}

void Dispatcher::run() {
  try {
    while (!closing_.load() && !failed()) {
      poll();
      take_incoming();
      for (std::size_t i = 0; i < replicas_.size() && !failed(); ++i)
        serve(*replicas_[i], static_cast<int>(i));
      if (!failed()) admit();
      if (!failed()) check_deadlines();
    }
  } catch (const std::exception& error) {
    fail({"dispatcher_error", error.what(), -1});
  }
  stop();
}

void Dispatcher::poll() {
  bool suspects = false;
  for (const auto& replica : replicas_) suspects |= replica->suspect_until_ns != 0;
  const long timeout_ms = in_flight_.size() > 0 || suspects ? kTickMs : -1;
  if (zmq_poll(poll_items_.data(), static_cast<int>(poll_items_.size()), timeout_ms) < 0 &&
      zmq_errno() != EINTR)
    throw SocketError("zmq_poll");
}

void Dispatcher::take_incoming() {
  wake_up_.silence();
  {
    std::lock_guard lock(incoming_mutex_);
    taken_.swap(incoming_);
  }
  queue_.insert(queue_.end(), taken_.begin(), taken_.end());
  taken_.clear();
}

void Dispatcher::serve(Replica& replica, int index) {
  const zmq_pollitem_t* const items = &poll_items_[static_cast<std::size_t>(index) * ReplicaLink::kNumItems];
  const auto readable = [items](ReplicaLink::Item i) { return items[i].revents & ZMQ_POLLIN; };
  if (readable(ReplicaLink::kHandshake)) replica.link.serve_handshake();
  if (readable(ReplicaLink::kInput)) receive_ready(replica);
  if (readable(ReplicaLink::kOutput)) receive_outputs(replica, index);
  if (readable(ReplicaLink::kDisconnect) && replica.link.take_disconnect() && replica.ready)
    replica.suspect_until_ns = now_ns() + kSuspectNs;
}

void Dispatcher::receive_ready(Replica& replica) {
  auto response = replica.link.receive_ready();
  if (!response) return;
  replica.ready = true;
  replica.stats.set_ready();
  {
    std::lock_guard lock(state_mutex_);
    replica.ready_response = std::move(response);
  }
  state_changed_.notify_all();
}

void Dispatcher::receive_outputs(Replica& replica, int index) {
  Frame frame;
  while (!failed() && replica.link.receive_output(frame)) {
    const std::int64_t now = now_ns();
    const std::span<const char> bytes = frame.bytes();
    if (std::string_view(bytes.data(), bytes.size()) == kEngineCoreDead) {
      fail({"engine_dead", replica_text(index) + " told that its engine core is dead", index});
      return;
    }
    const std::string error = decode_outputs(bytes, layout_, outputs_);
    if (!error.empty()) {
      fail({"protocol_error", replica_text(index) + " sent outputs that can't be read: " + error,
            index});
      return;
    }
    replica.last_heard_ns = now;
    if (outputs_.scheduler_stats) replica.stats.set_scheduler(*outputs_.scheduler_stats);
    if (!handle_outputs(replica, index, now)) return;
    // vLLM may put tensors into frames of their own; none of them is ours to read.
    while (frame.has_more() && replica.link.receive_output(frame)) {
    }
  }
}

bool Dispatcher::handle_outputs(Replica& replica, int index, std::int64_t now) {
  for (const Outputs::Output& output : outputs_.outputs) {
    InFlightTable::Slot* slot = in_flight_.find(output.id);
    if (!slot || slot->replica != static_cast<std::uint32_t>(index)) {
      fail({"protocol_error",
            replica_text(index) + " answered a request that it does not hold", index});
      return false;
    }
    const std::span<const std::int32_t> tokens = outputs_.tokens_of(output);
    if (slot->tokens.size() + tokens.size() > in_flight_.max_output_tokens()) {
      fail({"too_many_tokens",
            replica_text(index) + " gave sample " + std::to_string(slot->sample.index) +
                " more than " + std::to_string(in_flight_.max_output_tokens()) + " tokens",
            index});
      return false;
    }
    if (!tokens.empty()) {
      if (slot->first_token_ns == 0) {
        slot->first_token_ns = now;
        stats_.first_tokens.add(1);
        stats_.ttft_ns.append(now - slot->issued_ns);
        slot->sink->on_first_token(slot->sample.id, tokens);
      }
      slot->tokens.insert(slot->tokens.end(), tokens.begin(), tokens.end());
      replica.stats.add_tokens(tokens.size());
    }
    switch (output.finish_reason) {
      case FinishReason::kNone:
        break;
      case FinishReason::kStop:
      case FinishReason::kLength: {
        if (slot->tokens.empty()) {
          fail({"empty_output",
                replica_text(index) + " ended sample " + std::to_string(slot->sample.index) +
                    " without a token",
                index});
          return false;
        }
        if (slot->tokens.size() > 1)
          stats_.tpot_ns.append((now - slot->first_token_ns) /
                                static_cast<std::int64_t>(slot->tokens.size() - 1));
        // Counted before the sink hears of it: whoever waits for the sink then sees it counted.
        replica.stats.complete(now);
        slot->sink->on_complete(slot->sample.id, slot->tokens);
        in_flight_.release(output.id);
        break;
      }
      case FinishReason::kAbort:
      case FinishReason::kError:
      case FinishReason::kRepetition:
        fail({"request_failed",
              replica_text(index) + " ended sample " + std::to_string(slot->sample.index) +
                  " with finish_reason " +
                  std::to_string(static_cast<int>(output.finish_reason)) +
                  " (2 abort, 3 error, 4 repetition)",
              index});
        return false;
    }
  }
  return true;
}

int Dispatcher::choose_replica(int wanted) {
  const auto load = [this](std::size_t i) {
    return static_cast<std::size_t>(replicas_[i]->stats.in_flight());
  };
  const auto has_room = [&](std::size_t i) {
    return replicas_[i]->ready && load(i) < replicas_[i]->credit.load();
  };
  if (wanted != kAnyReplica)
    return has_room(static_cast<std::size_t>(wanted)) ? wanted : kAnyReplica;

  // Least loaded by share of its credit; among equals the next in turn, so that a light load
  // reaches every replica.
  std::optional<std::size_t> best;
  for (std::size_t n = 0; n < replicas_.size(); ++n) {
    const std::size_t i = (next_replica_ + n) % replicas_.size();
    if (!has_room(i)) continue;
    if (!best || load(i) * replicas_[*best]->credit.load() < load(*best) * replicas_[i]->credit.load())
      best = i;
  }
  if (!best) return kAnyReplica;
  next_replica_ = (*best + 1) % replicas_.size();
  return static_cast<int>(*best);
}

void Dispatcher::admit() {
  while (!queue_.empty()) {
    const Queued& next = queue_.front();
    const int index = choose_replica(next.replica);
    if (index == kAnyReplica) return;
    Replica& replica = *replicas_[static_cast<std::size_t>(index)];

    const SampleStore::Request request = (*store_)[next.sample.index];
    const std::int64_t now = now_ns();
    const RequestId id = in_flight_.take();
    InFlightTable::Slot& slot = *in_flight_.find(id);
    slot.replica = static_cast<std::uint32_t>(index);
    slot.sample = next.sample;
    slot.sink = next.sink;
    slot.issued_ns = next.issued_ns;
    slot.admitted_ns = now;
    if (replica.stats.in_flight() == 0) replica.last_heard_ns = now;
    replica.stats.admit(now, request.num_prompt_tokens);
    queue_.pop_front();
    if (!replica.link.send(request, id)) {
      fail({"connection_lost", "the connection to " + replica_text(index) + " is lost", index});
      return;
    }
  }
}

void Dispatcher::check_deadlines() {
  const std::int64_t now = now_ns();
  if (now < next_deadline_check_ns_) return;
  next_deadline_check_ns_ = now + kTickMs * kNsPerMs;

  for (std::size_t i = 0; i < replicas_.size(); ++i) {
    Replica& replica = *replicas_[i];
    const int index = static_cast<int>(i);
    if (replica.suspect_until_ns != 0) {
      if (!replica.link.probe()) {
        fail({"connection_lost", "the connection to " + replica_text(index) + " is lost", index});
        return;
      }
      if (now > replica.suspect_until_ns) replica.suspect_until_ns = 0;
    }
    if (replica.stats.in_flight() > 0 &&
        now - replica.last_heard_ns > to_ns(options_.stall_deadline_s)) {
      fail({"stall",
            replica_text(index) + " has " + std::to_string(replica.stats.in_flight()) +
                " samples and said nothing for " + seconds_text(options_.stall_deadline_s),
            index});
      return;
    }
  }
  const InFlightTable::Slot* oldest = in_flight_.oldest();
  if (oldest && now - oldest->admitted_ns > to_ns(options_.sample_deadline_s))
    fail({"sample_deadline",
          "sample " + std::to_string(oldest->sample.index) + " was not complete " +
              seconds_text(options_.sample_deadline_s) + " after " +
              replica_text(static_cast<int>(oldest->replica)) + " took it",
          static_cast<int>(oldest->replica)});
}

void Dispatcher::stop() {
  {
    std::lock_guard lock(incoming_mutex_);
    closing_.store(true);  // from here on issue() drops
    const auto waiting = static_cast<std::int64_t>(incoming_.size() + queue_.size());
    stats_.dropped.set(waiting);
    stats_.failed.set(waiting + static_cast<std::int64_t>(in_flight_.size()));
    incoming_.clear();
  }
  {
    std::lock_guard lock(state_mutex_);
    stopped_ = true;
  }
  state_changed_.notify_all();
}

}  // namespace sut
