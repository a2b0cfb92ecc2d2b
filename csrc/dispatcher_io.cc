// The dispatcher's I/O thread: only that thread runs this code.
#include <algorithm>
#include <cmath>
#include <utility>

#include "dispatcher.h"

namespace sut {
namespace {

constexpr std::int64_t kTickMs = 250;  // between checks of the deadlines while work is in flight
constexpr std::int64_t kNsPerMs = 1'000'000;
constexpr double kMaxTimestampS = 1e9;  // keeps an engine's time in an int64_t

// A dying engine loses both connections and may send kEngineCoreDead on the one for outputs: after
// a lost input connection, wait this long for that frame.
constexpr std::int64_t kDeathNoticeNs = 500 * kNsPerMs;

std::int64_t to_ns(double seconds) {
  return static_cast<std::int64_t>(std::min(seconds, kForeverS) * 1e9);
}

std::string seconds_text(double seconds) {
  return std::to_string(std::llround(seconds)) + " s";
}

}  // namespace

void Dispatcher::run() {
  try {
    // What arrived before: the poller reports only what comes after everything is read.
    for (std::size_t i = 0; i < replicas_.size(); ++i) note_all_news(static_cast<int>(i));
    while (!closing_.load() && !failed()) {
      if (is_rung_) take_incoming();
      for (const int index : with_news_) {
        if (failed()) break;
        serve(*replicas_[static_cast<std::size_t>(index)], index);
      }
      with_news_.clear();
      if (!failed()) admit();
      if (!failed()) read_inputs_after_sends();
      if (!failed()) check_deadlines();
      if (is_draining_ && in_flight_.size() == 0 && restarted_.empty()) {
        is_draining_ = false;
        drained_.store(true);
      }
      if (!failed()) wait_for_news();
    }
  } catch (const std::exception& error) {
    fail({"dispatcher_error", error.what(), -1});
  }
  stop();
}

void Dispatcher::wait_for_news() {
  const bool is_pending = in_flight_.size() > 0 || !queue_.empty() || !restarted_.empty() ||
                          num_pinned_ > 0;
  int timeout_ms = is_pending || has_lost_input_ ? kTickMs : -1;
  if (!touched_.empty()) timeout_ms = 0;  // since admit(): a deadline made room
  poller_.wait(timeout_ms, [this](std::uint64_t key) { note_news(key); });
}

void Dispatcher::note_news(std::uint64_t key) {
  if (key == kWakeUpKey) {
    is_rung_ = true;
    return;
  }
  const std::size_t index = key / ReplicaLink::kNumItems;
  Replica& replica = *replicas_[index];
  if (replica.news == 0) with_news_.push_back(static_cast<int>(index));
  replica.news |= 1u << key % ReplicaLink::kNumItems;
}

void Dispatcher::note_all_news(int index) {
  for (std::size_t item = 0; item < ReplicaLink::kNumItems; ++item)
    note_news(static_cast<std::size_t>(index) * ReplicaLink::kNumItems + item);
}

void Dispatcher::serve(Replica& replica, int index) {
  const unsigned news = std::exchange(replica.news, 0);
  if (replica.lost) return replica.link->discard();
  const auto readable = [news](ReplicaLink::Item item) { return (news >> item & 1u) != 0; };
  if (readable(ReplicaLink::kHandshake)) replica.link->serve_handshake();
  if (readable(ReplicaLink::kHandshakeLost)) replica.link->take_handshake_lost();
  if (!replica.ready || readable(ReplicaLink::kInput)) receive_ready(replica, index);
  // An engine that reconnects continues as if nothing had happened, and an answer that lost tokens
  // on the way looks like a short one. So a lost connection loses the replica before any frame of
  // the next connection is read.
  if (readable(ReplicaLink::kInputLost) && replica.link->take_input_lost()) {
    replica.input_lost_ns = now_ns();
    has_lost_input_ = true;
  }
  if (readable(ReplicaLink::kOutputLost) && replica.link->take_output_lost())
    lose_by_output(replica, index);
  else if (readable(ReplicaLink::kOutput))
    receive_outputs(replica, index);
  replica.num_refused.store(replica.num_refused_before + replica.link->num_refused(),
                            std::memory_order_relaxed);
}

void Dispatcher::receive_ready(Replica& replica, int index) {
  auto response = replica.link->receive_ready();
  if (!response) return;
  replica.ready = true;
  touch(index);
  {
    std::lock_guard lock(state_mutex_);
    replica.ready_response = std::move(response);
  }
  state_changed_.notify_all();
}

void Dispatcher::receive_outputs(Replica& replica, int index) {
  Frame frame;
  while (!failed() && replica.link->receive_output(frame)) {
    const std::int64_t now = now_ns();
    if (is_engine_dead(frame)) return lose_by_dead_engine(index);
    // ZeroMQ reports a loss before it delivers frames of the next connection.
    if (!replica.link->is_by_first_connection(frame) || replica.link->take_output_lost())
      return lose_by_output(replica, index);
    const std::string error = decode_outputs(frame.bytes(), layout_, outputs_);
    if (!error.empty()) {
      fail({"protocol_error", replica_text(index) + " sent invalid outputs: " + error, index});
      return;
    }
    if (!is_in_order(replica, index)) return;
    replica.last_heard_ns = now;
    if (outputs_.scheduler_stats) replica.stats.set_scheduler(*outputs_.scheduler_stats);
    replica.stats.add_shortcuts(outputs_.shortcuts);
    if (!handle_outputs(replica, index, now)) return;
    // vLLM may send tensors in further frames, which are not needed here.
    while (frame.has_more() && replica.link->receive_output(frame)) {
    }
  }
}

// A frame that comes twice, or after a later one, gives an answer tokens that it does not have. vLLM
// numbers no frame, but gives each the time at which it was made.
bool Dispatcher::is_in_order(Replica& replica, int index) {
  const double made_s = outputs_.timestamp_s;
  if (made_s <= 0) return true;
  if (made_s <= replica.last_made_s) {
    fail({"protocol_error",
          replica_text(index) + " sent outputs twice or out of order: made at " +
              std::to_string(made_s) + " s of its clock, received after those of " +
              std::to_string(replica.last_made_s) + " s",
          index});
    return false;
  }
  replica.last_made_s = made_s;
  return true;
}

bool Dispatcher::handle_outputs(Replica& replica, int index, std::int64_t now) {
  // Before any sink is called: whoever waits for the last completion then finds the step logged.
  if (steps_.is_on() && !outputs_.outputs.empty()) log_step(index, now);
  for (const Outputs::Output& output : outputs_.outputs)
    if (!handle_output(replica, index, output, now)) return false;
  return true;
}

void Dispatcher::log_step(int index, std::int64_t now) {
  EngineStep step{.replica = static_cast<std::uint32_t>(index), .received_ns = now};
  if (outputs_.timestamp_s > 0 && outputs_.timestamp_s < kMaxTimestampS)
    step.engine_ns = static_cast<std::int64_t>(outputs_.timestamp_s * 1e9);
  for (const Outputs::Output& output : outputs_.outputs) {
    const InFlightTable::Slot* slot = in_flight_.find(output.id);
    if (!slot || output.token_begin == output.token_end) continue;
    const std::uint32_t prompt_tokens = (*store_)[slot->sample.index].num_prompt_tokens;
    if (slot->tokens.empty()) {
      ++step.num_prompts;
      step.prompt_tokens += prompt_tokens;
    } else {
      ++step.num_decoding;
      step.context_tokens += prompt_tokens + static_cast<std::int64_t>(slot->tokens.size());
    }
  }
  // An output of no sample ends the run. It may arrive during reset_stats(), when no step may be
  // logged.
  if (step.num_prompts + step.num_decoding > 0) steps_.append(step);
}

bool Dispatcher::handle_output(Replica& replica, int index, const Outputs::Output& output,
                               std::int64_t now) {
  const auto failed_by = [&](const char* code, const std::string& what) {
    fail({code, replica_text(index) + what, index});
    return false;
  };
  InFlightTable::Slot* slot = in_flight_.find(output.id);
  if (!slot || slot->replica != static_cast<std::uint32_t>(index))
    return failed_by("protocol_error", " answered a request it was not sent");
  const auto sample = [&] { return "sample " + std::to_string(slot->sample.index); };
  const std::span<const std::int32_t> tokens = outputs_.tokens_of(output);
  if (slot->tokens.size() + tokens.size() > in_flight_.max_output_tokens())
    return failed_by("too_many_tokens",
                     " returned more than " +
                         std::to_string(in_flight_.max_output_tokens()) + " tokens for " +
                         sample());
  if (!tokens.empty()) keep_tokens(replica, *slot, tokens, now);
  switch (output.finish_reason) {
    case FinishReason::kNone:
      return true;
    case FinishReason::kStop:
    case FinishReason::kLength:
      if (slot->tokens.empty())
        return failed_by("empty_output", " ended " + sample() + " without a token");
      complete(replica, *slot, now);
      in_flight_.release(output.id);
      return true;
    case FinishReason::kAbort:
    case FinishReason::kError:
    case FinishReason::kRepetition:
      break;
  }
  return failed_by("request_failed",
                   " ended " + sample() + " with finish_reason " +
                       std::to_string(static_cast<int>(output.finish_reason)) +
                       " (2 abort, 3 error, 4 repetition)");
}

void Dispatcher::keep_tokens(Replica& replica, InFlightTable::Slot& slot,
                             std::span<const std::int32_t> tokens, std::int64_t now) {
  if (slot.first_token_ns == 0) {
    slot.first_token_ns = now;
    stats_.first_tokens.add(1);
    const std::int64_t limit_ns = stats_.ttft_limit_ns.load(std::memory_order_relaxed);
    if (!slot.ttft_over && now - slot.issued_ns > limit_ns)
      stats_.ttft_over.add(1);
    slot.sink->on_first_token(slot.sample.id, tokens);
    slot.first_reported_ns = now_ns();
  }
  slot.tokens.insert(slot.tokens.end(), tokens.begin(), tokens.end());
  replica.stats.add_tokens(tokens.size());
}

void Dispatcher::complete(Replica& replica, const InFlightTable::Slot& slot, std::int64_t now) {
  stats_.add({.sample_index = static_cast<std::uint32_t>(slot.sample.index),
              .replica = slot.replica,
              .prompt_tokens = (*store_)[slot.sample.index].num_prompt_tokens,
              .output_tokens = static_cast<std::uint32_t>(slot.tokens.size()),
              .issued_ns = slot.issued_ns,
              .admitted_ns = slot.admitted_ns,
              .first_token_ns = slot.first_token_ns,
              .completed_ns = now});
  const auto gaps = static_cast<std::int64_t>(slot.tokens.size()) - 1;
  if (!slot.tpot_over && gaps > 0 &&
      (now - slot.first_reported_ns) / gaps > stats_.tpot_limit_ns.load(std::memory_order_relaxed))
    stats_.tpot_over.add(1);
  // Count before the call: whoever waits for the sink then finds the sample counted.
  replica.stats.complete(now);
  touch(static_cast<int>(slot.replica));
  slot.sink->on_complete(slot.sample.id, slot.tokens);
}

bool Dispatcher::is_silent(const Replica& replica, std::int64_t now) const {
  return replica.stats.in_flight() > 0 &&
         now - replica.last_heard_ns > to_ns(options_.stall_deadline_s);
}

void Dispatcher::lose_by_stall(Replica& replica, int index, std::int64_t now) {
  // A sink, or a suspended process, may have kept this thread from reading what has arrived.
  receive_outputs(replica, index);
  if (failed() || replica.lost || !is_silent(replica, now)) return;
  lose_replica({"stall",
                replica_text(index) + " has " + std::to_string(replica.stats.in_flight()) +
                    " samples in flight and sent nothing for " +
                    seconds_text(options_.stall_deadline_s),
                index});
}

void Dispatcher::check_deadlines() {
  const std::int64_t now = now_ns();
  if (now < next_deadline_check_ns_) return;
  next_deadline_check_ns_ = now + kTickMs * kNsPerMs;
  count_late(now);

  for (std::size_t i = 0; i < replicas_.size(); ++i) {
    Replica& replica = *replicas_[i];
    const int index = static_cast<int>(i);
    if (replica.lost) continue;
    if (replica.input_lost_ns != 0 && now - replica.input_lost_ns > kDeathNoticeNs)
      lose_by_connection(index);
    else if (watches_deadlines_.load() && is_silent(replica, now))
      lose_by_stall(replica, index, now);
    if (failed()) return;
  }
  const InFlightTable::Slot* oldest = in_flight_.oldest();
  if (oldest && watches_deadlines_.load() &&
      now - oldest->sent_ns > to_ns(options_.sample_deadline_s))
    fail({"sample_deadline",
          "sample " + std::to_string(oldest->sample.index) + " incomplete " +
              seconds_text(options_.sample_deadline_s) + " after it was sent to " +
              replica_text(static_cast<int>(oldest->replica)),
          static_cast<int>(oldest->replica)});
}

void Dispatcher::stop() {
  {
    std::lock_guard lock(incoming_mutex_);
    closing_.store(true);  // issue() drops samples from here on
    const auto waiting =
        static_cast<std::int64_t>(incoming_.size() + queue_.size() + restarted_.size() +
                                  num_pinned_);
    stats_.dropped.set(waiting);
    stats_.failed.set(waiting + static_cast<std::int64_t>(in_flight_.size()));
    incoming_.clear();
  }
  {
    std::lock_guard lock(state_mutex_);
    stopped_ = true;
    stats_.until_ns.store(now_ns());
  }
  state_changed_.notify_all();
}

}  // namespace sut
