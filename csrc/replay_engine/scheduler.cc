#include "scheduler.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <stdexcept>
#include <utility>

namespace replay {

Scheduler::Scheduler(const Limits& limits, const ServiceModel& model)
    : limits_(limits), model_(model), jitter_(model) {
  assert(limits.max_num_seqs >= 1 && limits.max_num_batched_tokens >= limits.max_num_seqs);
}

void Scheduler::add(Request request) {
  if (by_id_.contains(request.id)) {
    throw std::invalid_argument("request id " + request.id + " is already in use");
  }
  Sequence& sequence = new_sequence();
  sequence.request = std::move(request);
  Request& r = sequence.request;
  if (r.prompt.empty() || r.prompt.size() >= limits_.max_model_len) {
    r.ends_empty = FinishReason::kError;
    r.prompt.clear();
  }
  const auto num_prompt = static_cast<std::uint32_t>(r.prompt.size());
  sequence.num_prompt_left = num_prompt;
  const std::uint32_t room = limits_.max_model_len - num_prompt;
  const std::uint32_t max_tokens = std::clamp(r.max_tokens.value_or(room), 1u, room);
  const std::uint32_t min_tokens = std::clamp(r.min_tokens, 1u, max_tokens);
  sequence.length = r.answer.empty()
                        ? model_.answer_length(r.prompt, min_tokens, max_tokens)
                        : static_cast<std::uint32_t>(
                              std::min<std::size_t>(r.answer.size(), max_tokens));
  sequence.capped = sequence.length == max_tokens;
  if (r.is_endless) sequence.length = std::numeric_limits<std::uint32_t>::max();
  by_id_.emplace(r.id, &sequence);
  waiting_.push_back(&sequence);
}

void Scheduler::abort(std::string_view request_id) {
  if (in_step_) {
    aborts_.emplace_back(request_id);
  } else {
    remove(request_id);
  }
}

Step Scheduler::begin_step() {
  assert(has_work() && !in_step_);
  in_step_ = true;
  free_.insert(free_.end(), retired_.begin(), retired_.end());
  retired_.clear();

  Step step;
  std::uint32_t budget = limits_.max_num_batched_tokens;
  for (Sequence* sequence : running_) schedule(*sequence, budget, step);
  while (budget > 0 && !waiting_.empty() && running_.size() < limits_.max_num_seqs) {
    running_.push_back(waiting_.front());
    waiting_.pop_front();
    schedule(*running_.back(), budget, step);
  }
  step.duration_ns = jitter_.next(model_.step_ns(step));
  return step;
}

std::span<const Output> Scheduler::end_step() {
  assert(in_step_);
  in_step_ = false;
  for (const std::string& id : aborts_) remove(id);
  aborts_.clear();

  outputs_.clear();
  auto kept = running_.begin();
  for (Sequence* sequence : running_) {
    const std::uint32_t num_computed = sequence->num_scheduled;
    sequence->num_cached += num_computed;
    num_cached_tokens_ += num_computed;
    const std::uint32_t num_prompt_computed = std::min(num_computed, sequence->num_prompt_left);
    sequence->num_prompt_left -= num_prompt_computed;
    if (num_computed > 0 && sequence->num_prompt_left == 0) {
      outputs_.push_back(next_output(*sequence));
      if (outputs_.back().finish_reason != FinishReason::kNone) {
        retire(*sequence);
        continue;
      }
    }
    *kept++ = sequence;
  }
  running_.erase(kept, running_.end());
  return outputs_;
}

SchedulerStats Scheduler::stats() const {
  return {
      .num_running = static_cast<std::uint32_t>(running_.size()),
      .num_waiting = static_cast<std::uint32_t>(waiting_.size()),
      .kv_cache_usage = static_cast<double>(num_cached_tokens_) /
                        static_cast<double>(limits_.kv_cache_size_tokens()),
  };
}

Scheduler::Sequence& Scheduler::new_sequence() {
  if (free_.empty()) return sequences_.emplace_back();
  Sequence& sequence = *free_.back();
  free_.pop_back();
  sequence = Sequence{};
  return sequence;
}

void Scheduler::schedule(Sequence& sequence, std::uint32_t& budget, Step& step) {
  const bool decodes = sequence.num_prompt_left == 0;
  const std::uint32_t num_tokens = std::min(decodes ? 1u : sequence.num_prompt_left, budget);
  sequence.num_scheduled = num_tokens;
  budget -= num_tokens;
  if (decodes) {
    step.num_decoding += num_tokens;
    step.num_context_tokens += sequence.request.prompt.size() + sequence.num_output;
  } else {
    step.num_prefill_tokens += num_tokens;
  }
}

Output Scheduler::next_output(Sequence& sequence) {
  const Request& request = sequence.request;
  Output output{
      .request_id = request.id,
      .num_prompt_tokens = static_cast<std::uint32_t>(request.prompt.size()),
      .num_cached_tokens = request.is_cached && sequence.num_output == 0,
      .is_first = sequence.num_output == 0,
  };
  if (request.ends_empty) {
    output.finish_reason = *request.ends_empty;
    output.has_token = false;
    return output;
  }
  const std::vector<std::uint32_t>& source = request.answer.empty() ? request.prompt : request.answer;
  output.token = request.has_foreign_token && output.is_first ? kForeignToken : source[sequence.next];
  if (++sequence.next == source.size()) sequence.next = 0;
  if (++sequence.num_output == sequence.length) {
    output.finish_reason = sequence.capped ? FinishReason::kLength : FinishReason::kStop;
  }
  return output;
}

void Scheduler::remove(std::string_view request_id) {
  const auto found = by_id_.find(request_id);
  if (found == by_id_.end()) return;
  Sequence* sequence = found->second;
  if (std::erase(running_, sequence) == 0) std::erase(waiting_, sequence);
  retire(*sequence);
}

void Scheduler::retire(Sequence& sequence) {
  by_id_.erase(sequence.request.id);
  num_cached_tokens_ -= sequence.num_cached;
  retired_.push_back(&sequence);
}

}  // namespace replay
