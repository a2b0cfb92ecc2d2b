#pragma once

#include <msgpack.hpp>
#include <span>

#include "scheduler.h"

namespace replay {

// Writes vLLM's EngineCoreOutputs, byte for byte as vLLM's own encoder does. The buffer is reused,
// so encoding allocates nothing once it has grown.
class OutputEncoder {
 public:
  // `timestamp_s` is on the monotonic clock, as in vLLM. The result is valid until the next call.
  std::span<const char> encode(std::span<const Output> outputs, const SchedulerStats& stats,
                               double timestamp_s);

 private:
  void pack(const Output& output);
  void pack(const SchedulerStats& stats);
  void pack_prefill_stats(const Output& output);
  void pack_cache_stats(std::uint32_t num_hits);
  void pack_spec_decoding_stats(std::uint32_t num_draft_tokens);

  msgpack::sbuffer buffer_;
};

}  // namespace replay
