#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "append_log.h"

namespace sut {

// What one frame of outputs reports about the engine's step that made it.
struct EngineStep {
  std::uint32_t replica = 0;
  std::uint32_t num_decoding = 0;   // outputs that continue an answer
  std::uint32_t num_prompts = 0;    // prompts whose last token the step computed
  std::int64_t prompt_tokens = 0;   // of these prompts
  std::int64_t context_tokens = 0;  // prompts and answers of the decoding sequences, before the step
  std::int64_t received_ns = 0;     // of now_ns()
  std::int64_t engine_ns = 0;       // of the engine's clock; 0 where a frame has no timestamp
};

// Steps in order of receipt, as columns. `received_ns` counts from the last reset_stats();
// `engine_ns` is only comparable within a replica.
struct StepLogColumns {
  std::vector<std::int64_t> replica, num_decoding, num_prompts, prompt_tokens, context_tokens;
  std::vector<std::int64_t> received_ns, engine_ns;
};

// The steps of every replica, kept only while it is on: long runs have many.
class StepLog {
 public:
  void turn(bool on) { is_on_.store(on, std::memory_order_relaxed); }
  bool is_on() const { return is_on_.load(std::memory_order_relaxed); }
  void append(const EngineStep& step) { steps_.append(step); }
  void clear() { steps_.clear(); }

  StepLogColumns columns(std::int64_t since_ns) const {
    StepLogColumns columns;
    const std::size_t count = steps_.size();
    for (auto* column : {&columns.replica, &columns.num_decoding, &columns.num_prompts,
                         &columns.prompt_tokens, &columns.context_tokens, &columns.received_ns,
                         &columns.engine_ns})
      column->reserve(count);
    steps_.for_each(count, [&](const EngineStep& step) {
      columns.replica.push_back(step.replica);
      columns.num_decoding.push_back(step.num_decoding);
      columns.num_prompts.push_back(step.num_prompts);
      columns.prompt_tokens.push_back(step.prompt_tokens);
      columns.context_tokens.push_back(step.context_tokens);
      columns.received_ns.push_back(step.received_ns - since_ns);
      columns.engine_ns.push_back(step.engine_ns);
    });
    return columns;
  }

 private:
  std::atomic<bool> is_on_{false};
  AppendLog<EngineStep> steps_;
};

}  // namespace sut
