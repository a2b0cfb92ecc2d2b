#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "../protocol.h"
#include "request.h"
#include "service_model.h"

namespace replay {

// vLLM's limits, with vLLM's names. Requires max_num_batched_tokens >= max_num_seqs >= 1.
struct Limits {
  std::uint32_t max_num_seqs = 0;
  std::uint32_t max_model_len = 0;
  std::uint32_t max_num_batched_tokens = 0;

  // The KV cache has room for every sequence at its maximum length, so none is preempted.
  std::uint64_t kv_cache_size_tokens() const {
    return std::uint64_t{max_num_seqs} * max_model_len;
  }
};

using sut::protocol::FinishReason;

// The result of one step for one request. `request_id` is valid until the next call of begin_step().
struct Output {
  std::string_view request_id;
  std::uint32_t token = 0;
  bool has_token = true;
  std::uint32_t num_prompt_tokens = 0;
  std::uint32_t num_cached_tokens = 0;  // of the prompt; only a fault sets it
  bool is_first = false;
  FinishReason finish_reason = FinishReason::kNone;
};

struct Step : StepWork {
  std::int64_t duration_ns = 0;
};

struct SchedulerStats {
  std::uint32_t num_running = 0;
  std::uint32_t num_waiting = 0;
  double kv_cache_usage = 0;  // 0 to 1
  std::uint32_t num_cache_hits = 0;    // this and below: only a fault sets them
  std::uint32_t num_draft_tokens = 0;
};

// Continuous batching in vLLM's order: in each step first the running requests get their tokens
// (one to decode, or the next piece of their prompt), then waiting ones are admitted, first come
// first served, while a sequence slot and token budget are left.
//
// It has no clock: begin_step() returns how long the step takes, and the caller waits, or advances
// a virtual clock, before end_step(). Requests may be added and aborted at any time. Used by one
// thread.
class Scheduler {
 public:
  Scheduler(const Limits& limits, const ServiceModel& model);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Queue a request. One whose prompt is empty, or leaves no room for a token within
  // max_model_len, ends with kError. Throws std::invalid_argument if the id is in use.
  void add(Request request);

  // Drop a request without an output; an unknown or finished one is ignored. During a step it
  // takes effect at the step's end, before the outputs, as in vLLM.
  void abort(std::string_view request_id);

  bool has_work() const { return !running_.empty() || !waiting_.empty(); }

  // Choose the work of the next step. Requires has_work() and no step in progress.
  Step begin_step();

  // The step's outputs, valid until the next begin_step(). Requires a step in progress.
  std::span<const Output> end_step();

  SchedulerStats stats() const;

 private:
  struct Sequence {
    Request request;
    std::uint32_t num_prompt_left = 0;
    std::uint32_t num_output = 0;
    std::uint32_t length = 0;  // of the answer
    bool capped = false;       // length is the maximum
    std::uint32_t num_scheduled = 0;
    std::uint32_t num_cached = 0;  // tokens in the KV cache
    std::size_t next = 0;          // index in the prompt or the given answer of the next token
  };

  Sequence& new_sequence();
  void schedule(Sequence& sequence, std::uint32_t& budget, Step& step);
  Output next_output(Sequence& sequence);
  void remove(std::string_view request_id);
  void retire(Sequence& sequence);

  const Limits limits_;
  const ServiceModel model_;
  Jitter jitter_;
  std::deque<Sequence> sequences_;  // owns them; addresses are stable
  std::vector<Sequence*> free_;
  std::vector<Sequence*> retired_;  // free from the next begin_step() on: outputs name their ids
  std::vector<Sequence*> running_;  // in order of admission
  std::deque<Sequence*> waiting_;
  std::unordered_map<std::string_view, Sequence*> by_id_;
  std::vector<std::string> aborts_;
  std::vector<Output> outputs_;
  std::uint64_t num_cached_tokens_ = 0;
  bool in_step_ = false;
};

}  // namespace replay
