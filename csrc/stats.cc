#include "stats.h"

namespace sut {

void Stats::add(const CompletedSample& sample) {
  ttft_ns.add(sample.ttft_ns());
  if (sample.output_tokens > 1) tpot_ns.add(sample.tpot_ns());
  samples.append(sample);
}

void ReplicaStats::admit(std::int64_t now, std::uint32_t num_prompt_tokens) {
  if (in_flight_.get() == 0) busy_since_.set(now);
  in_flight_.add(1);
  admitted_.add(1);
  prompt_tokens_.add(num_prompt_tokens);
}

void ReplicaStats::complete(std::int64_t now) {
  in_flight_.add(-1);
  completed_.add(1);
  if (in_flight_.get() == 0) busy_ns_.add(now - busy_since_.get());
}

void ReplicaStats::take_back(std::int64_t now, std::int64_t num_samples,
                             std::int64_t prompt_tokens, std::int64_t output_tokens) {
  if (num_samples == 0) return;
  in_flight_.add(-num_samples);
  admitted_.add(-num_samples);
  prompt_tokens_.add(-prompt_tokens);
  output_tokens_.add(-output_tokens);
  if (in_flight_.get() == 0) busy_ns_.add(now - busy_since_.get());
}

void ReplicaStats::set_scheduler(const SchedulerStats& stats) {
  running_.set(stats.running);
  waiting_.set(stats.waiting);
  kv_cache_usage_.store(stats.kv_cache_usage, std::memory_order_relaxed);
}

void ReplicaStats::add_shortcuts(const Shortcuts& found) {
  num_prefills_.add(found.num_prefills);
  num_stats_.add(found.num_stats);
  cached_tokens_.add(found.cached_tokens);
  cache_hits_.add(found.cache_hits);
  draft_tokens_.add(found.draft_tokens);
}

ReplicaSnapshot ReplicaStats::snapshot(int index, std::int64_t now) const {
  ReplicaSnapshot s;
  s.index = index;
  s.in_flight = in_flight_.get();
  s.admitted = admitted_.get();
  s.completed = completed_.get();
  s.prompt_tokens = prompt_tokens_.get();
  s.output_tokens = output_tokens_.get();
  s.busy_ns = busy_ns_.get() + (s.in_flight > 0 ? now - busy_since_.get() : 0);
  s.running = running_.get();
  s.waiting = waiting_.get();
  s.kv_cache_usage = kv_cache_usage_.load(std::memory_order_relaxed);
  s.shortcuts = {.num_prefills = num_prefills_.get(),
                 .num_stats = num_stats_.get(),
                 .cached_tokens = cached_tokens_.get(),
                 .cache_hits = cache_hits_.get(),
                 .draft_tokens = draft_tokens_.get()};
  return s;
}

void ReplicaStats::reset() {
  for (Counter* counter :
       {&admitted_, &completed_, &prompt_tokens_, &output_tokens_, &busy_ns_, &num_prefills_,
        &num_stats_, &cached_tokens_, &cache_hits_, &draft_tokens_})
    counter->set(0);
}

}  // namespace sut
