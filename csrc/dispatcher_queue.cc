// The dispatcher's queues, on its I/O thread: from issue() to a replica.
#include <utility>

#include "dispatcher.h"

namespace sut {

template <typename Visit>
void Dispatcher::for_each_queue(Visit visit) {
  visit(queue_);
  if (num_pinned_ == 0) return;
  for (const auto& replica : replicas_) visit(replica->queue);
}

void Dispatcher::take_incoming() {
  is_rung_ = false;
  wake_up_.silence();
  take_reports();  // before samples for a replica that has rejoined
  if (failed()) return;
  // Before the samples: those that were issued before a withdrawal are withdrawn. One that was left
  // would go to a replica once its sink may be gone.
  const bool withdraws = withdraw_.exchange(false);
  {
    std::lock_guard lock(incoming_mutex_);
    taken_.swap(incoming_);
  }
  for (const Queued& sample : taken_) {
    if (sample.replica == kAnyReplica) {
      queue_.push_back(sample);
    } else {
      Replica& replica = *replicas_[static_cast<std::size_t>(sample.replica)];
      replica.queue.push_back(sample);
      ++num_pinned_;
      touch(sample.replica);
      if (replica.lost) fail_by_lost(sample.replica);
    }
  }
  taken_.clear();
  if (withdraws) {
    for_each_queue([this](std::deque<Queued>& queue) {
      stats_.withdrawn.add(static_cast<std::int64_t>(queue.size()));
      queue.clear();
    });
    num_pinned_ = 0;
    is_draining_ = true;
  }
  // After the samples: those that were issued after a call of set_credit() see its credit.
  if (credits_changed_.exchange(false))
    for (std::size_t i = 0; i < replicas_.size(); ++i) touch(static_cast<int>(i));
}

void Dispatcher::touch(int index) {
  Replica& replica = *replicas_[static_cast<std::size_t>(index)];
  if (std::exchange(replica.is_touched, true)) return;
  touched_.push_back(index);
}

bool Dispatcher::has_room(const Replica& replica) const {
  return replica.ready && !replica.lost &&
         static_cast<std::size_t>(replica.stats.in_flight()) < replica.credit.load();
}

void Dispatcher::update_choice(int index) {
  const Replica& replica = *replicas_[static_cast<std::size_t>(index)];
  choice_.set(static_cast<std::size_t>(index), static_cast<std::size_t>(replica.stats.in_flight()),
              replica.ready && !replica.lost ? replica.credit.load() : 0);
}

void Dispatcher::admit() {
  for (std::size_t i = 0; i < touched_.size(); ++i) {
    Replica& replica = *replicas_[static_cast<std::size_t>(touched_[i])];
    while (!replica.queue.empty() && has_room(replica)) {
      const Queued next = replica.queue.front();
      replica.queue.pop_front();
      --num_pinned_;
      send(next, touched_[i]);
      if (failed()) return;
    }
    update_choice(touched_[i]);
  }
  while (!restarted_.empty() || !queue_.empty()) {
    const std::optional<std::size_t> chosen = choice_.next();
    if (!chosen) return;
    const int index = static_cast<int>(*chosen);
    if (!restarted_.empty()) {
      const Restarted next = restarted_.front();
      restarted_.pop_front();
      send(next.sample, index, &next);
    } else {
      const Queued next = queue_.front();
      queue_.pop_front();
      send(next, index);
    }
    if (failed()) return;
    update_choice(index);
  }
}

void Dispatcher::send(const Queued& next, int index, const Restarted* earlier) {
  Replica& replica = *replicas_[static_cast<std::size_t>(index)];
  const SampleStore::Request request = (*store_)[next.sample.index];
  const std::int64_t now = now_ns();
  const RequestId id = in_flight_.take();
  InFlightTable::Slot& slot = *in_flight_.find(id);
  slot.replica = static_cast<std::uint32_t>(index);
  slot.sample = next.sample;
  slot.sink = next.sink;
  slot.issued_ns = next.issued_ns;
  slot.admitted_ns = slot.sent_ns = now;
  slot.ttft_over = next.ttft_over;
  slot.pinned = next.replica != kAnyReplica;
  if (earlier) {
    slot.admitted_ns = earlier->admitted_ns;
    slot.first_token_ns = earlier->first_token_ns;
    slot.first_reported_ns = earlier->first_reported_ns;
    slot.tpot_over = earlier->tpot_over;
  }
  if (replica.stats.in_flight() == 0) replica.last_heard_ns = now;
  replica.stats.admit(now, request.num_prompt_tokens);
  replica.num_sent.fetch_add(1, std::memory_order_relaxed);
  touch(index);
  replica.was_sent_to = true;
  if (!replica.link->send(request, id)) lose_by_connection(index);
}

// A send may have taken the news of a socket's input: see Poller.
void Dispatcher::read_inputs_after_sends() {
  for (const int index : touched_) {
    Replica& replica = *replicas_[static_cast<std::size_t>(index)];
    replica.is_touched = false;
    if (std::exchange(replica.was_sent_to, false)) receive_ready(replica, index);
  }
  touched_.clear();
}

void Dispatcher::count_late(std::int64_t now) {
  const std::int64_t ttft_limit_ns = stats_.ttft_limit_ns.load(std::memory_order_relaxed);
  const std::int64_t tpot_limit_ns = stats_.tpot_limit_ns.load(std::memory_order_relaxed);
  if (ttft_limit_ns == kNoLimit && tpot_limit_ns == kNoLimit) return;
  const auto mark = [](bool& marked, Counter& counter) {
    if (!marked) counter.add(1);
    marked = true;
  };
  for_each_queue([&](std::deque<Queued>& queue) {
    for (Queued& queued : queue) {  // in order of issue
      if (now - queued.issued_ns <= ttft_limit_ns) break;
      mark(queued.ttft_over, stats_.ttft_over);
    }
  });
  for (Restarted& restarted : restarted_)
    if (restarted.first_token_ns == 0 && now - restarted.sample.issued_ns > ttft_limit_ns)
      mark(restarted.sample.ttft_over, stats_.ttft_over);
  const auto most_gaps = static_cast<std::int64_t>(in_flight_.max_output_tokens()) - 1;
  in_flight_.for_each([&](InFlightTable::Slot& slot) {
    if (slot.first_token_ns == 0) {
      if (now - slot.issued_ns > ttft_limit_ns) mark(slot.ttft_over, stats_.ttft_over);
    } else if (slot.tokens.size() > 1 &&  // an answer of one token has no TPOT
               (now - slot.first_reported_ns) / most_gaps > tpot_limit_ns) {
      mark(slot.tpot_over, stats_.tpot_over);
    }
  });
}

}  // namespace sut
