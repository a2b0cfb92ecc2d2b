// A lost replica, on the dispatcher's I/O thread: the end of the run, or its samples start again, and
// another engine may take its place.
#include <algorithm>
#include <utility>
#include <variant>

#include "dispatcher.h"

namespace sut {

std::string Dispatcher::replica_text(int index) { return "replica " + std::to_string(index); }

bool Dispatcher::is_engine_dead(Frame& frame) {
  return std::string_view(frame.data(), frame.size()) == protocol::kEngineCoreDead;
}

void Dispatcher::lose_by_output(Replica& replica, int index) {
  Frame frame;
  while (replica.link->receive_output(frame))
    if (is_engine_dead(frame)) return lose_by_dead_engine(index);
  lose_by_connection(index);
}

void Dispatcher::lose_by_connection(int index) {
  lose_replica({"connection_lost", "connection to " + replica_text(index) + " lost", index});
}

void Dispatcher::lose_by_dead_engine(int index) {
  lose_replica(
      {"engine_dead", replica_text(index) + " reported that its engine core died", index});
}

void Dispatcher::take_reports() {
  std::vector<Report> reports;
  {
    std::lock_guard lock(state_mutex_);
    reports.swap(reports_);
  }
  for (Report& report : reports) {
    if (failed()) return;
    if (Failure* why = std::get_if<Failure>(&report))
      lose_replica(std::move(*why));
    else
      take_back_replica(std::move(std::get<Rejoined>(report)));
  }
}

void Dispatcher::take_back_replica(Rejoined rejoined) {
  const int index = rejoined.replica;
  Replica& replica = *replicas_[static_cast<std::size_t>(index)];
  for (const int descriptor : replica.link->descriptors()) poller_.remove(descriptor);
  replica.links->close(replica.place);
  replica.links = std::move(rejoined.links);
  replica.place = 0;
  replica.link = rejoined.link;
  watch_link(index);
  replica.num_refused_before = replica.num_refused.load(std::memory_order_relaxed);
  replica.ready = true;
  replica.lost = false;
  replica.input_lost_ns = 0;
  replica.last_made_s = 0;  // its node may have started again, and its clock with it
  {
    std::lock_guard lock(state_mutex_);
    replica.ready_response = std::move(rejoined.ready_response);
  }
  note_all_news(index);  // what arrived before
  touch(index);
  state_changed_.notify_all();
}

void Dispatcher::lose_replica(Failure why) {
  const int index = why.replica;
  Replica& replica = *replicas_[static_cast<std::size_t>(index)];
  if (replica.lost) return;
  if (!continues_.load() || !can_continue_without(index)) return fail(std::move(why));
  replica.lost = true;
  ReplicaLoss loss = restart_samples_of(index);
  loss.why = std::move(why);
  replica.link->discard();  // the poller reports only what comes after everything is read
  touch(index);
  {
    std::lock_guard lock(state_mutex_);
    losses_.push_back(std::move(loss));
  }
  state_changed_.notify_all();
}

void Dispatcher::fail_by_lost(int index) {
  std::optional<Failure> why;
  {
    std::lock_guard lock(state_mutex_);
    const auto last = std::find_if(losses_.rbegin(), losses_.rend(), [index](const auto& loss) {
      return loss.why.replica == index;  // it may have rejoined after earlier ones
    });
    why = last->why;
  }
  fail(std::move(*why));
}

bool Dispatcher::can_continue_without(int index) const {
  if (!replicas_[static_cast<std::size_t>(index)]->queue.empty()) return false;
  if (std::ranges::any_of(in_flight_.at_replica(static_cast<std::uint32_t>(index)),
                          [](const InFlightTable::Slot* slot) { return slot->pinned; }))
    return false;
  if (awaits_rejoin_.load()) return true;
  for (std::size_t i = 0; i < replicas_.size(); ++i) {
    const Replica& other = *replicas_[i];
    if (static_cast<int>(i) != index && other.ready && !other.lost && other.credit.load() > 0)
      return true;
  }
  return false;
}

ReplicaLoss Dispatcher::restart_samples_of(int index) {
  Replica& replica = *replicas_[static_cast<std::size_t>(index)];
  ReplicaLoss loss{.why = {}, .lost_ns = now_ns()};
  std::int64_t prompt_tokens = 0;
  for (const InFlightTable::Slot* slot :
       in_flight_.at_replica(static_cast<std::uint32_t>(index))) {
    ++loss.samples_restarted;
    loss.tokens_lost += static_cast<std::int64_t>(slot->tokens.size());
    prompt_tokens += (*store_)[slot->sample.index].num_prompt_tokens;
    restarted_.push_back({{slot->sample, slot->sink, slot->issued_ns, kAnyReplica, slot->ttft_over},
                          slot->admitted_ns,
                          slot->first_token_ns,
                          slot->first_reported_ns,
                          slot->tpot_over});
    in_flight_.release(in_flight_.id_of(*slot));
  }
  replica.stats.take_back(loss.lost_ns, loss.samples_restarted, prompt_tokens, loss.tokens_lost);
  replica.stats.set_scheduler({});  // it has no later report
  return loss;
}

}  // namespace sut
