#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol.h"

namespace sut {

using protocol::FinishReason;
using protocol::kRequestIdLength;

// The positions and keys of vLLM's output fields. A run reads them from the installed vLLM's
// struct definitions, because the structs travel as arrays; the defaults are those of every tested
// version.
struct WireLayout {
  std::uint32_t outputs = protocol::kOutputList;              // in EngineCoreOutputs
  std::uint32_t scheduler_stats = protocol::kSchedulerStats;  // in EngineCoreOutputs
  std::uint32_t timestamp = protocol::kTimestamp;             // in EngineCoreOutputs
  std::uint32_t request_id = protocol::kOutputRequestId;      // in EngineCoreOutput
  std::uint32_t new_token_ids = protocol::kNewTokenIds;       // in EngineCoreOutput
  std::uint32_t finish_reason = protocol::kFinishReason;      // in EngineCoreOutput
  std::uint32_t prefill_stats = protocol::kPrefillStats;      // in EngineCoreOutput
  std::string running_key{protocol::kNumRunningReqs};         // in SchedulerStats, a map
  std::string waiting_key{protocol::kNumWaitingReqs};
  std::string kv_cache_usage_key{protocol::kKvCacheUsage};
};

// A slot of the in-flight table and the number of its use, so that a late answer to an earlier
// use is not taken for an answer to the current one.
struct RequestId {
  std::uint32_t slot;
  std::uint32_t use;
};

void write_request_id(RequestId id, char* out);  // writes kRequestIdLength characters
std::optional<RequestId> read_request_id(std::string_view text);

struct SchedulerStats {
  std::int64_t running = 0;
  std::int64_t waiting = 0;
  double kv_cache_usage = 0;
};

// What a frame reports that a benchmark must not have: work reused or guessed. `num_prefills` and
// `num_stats` count the reports themselves, because an engine without them reports nothing at all.
struct Shortcuts {
  std::int64_t num_prefills = 0;   // requests whose first output has PrefillStats
  std::int64_t num_stats = 0;      // frames with SchedulerStats
  std::int64_t cached_tokens = 0;  // tokens of prompts that were not computed, by PrefillStats
  std::int64_t cache_hits = 0;     // the same by SchedulerStats, of preempted requests too
  std::int64_t draft_tokens = 0;   // proposed by speculative decoding
};

// One decoded EngineCoreOutputs frame. Its reader reuses it, so that decoding allocates nothing
// for outputs once the buffers have grown.
struct Outputs {
  struct Output {
    RequestId id;
    std::uint32_t token_begin;  // range in `tokens`
    std::uint32_t token_end;
    FinishReason finish_reason;
  };

  std::vector<Output> outputs;
  std::vector<std::int32_t> tokens;
  std::optional<SchedulerStats> scheduler_stats;
  Shortcuts shortcuts;
  double timestamp_s = 0;  // of the engine's monotonic clock; 0: none

  std::span<const std::int32_t> tokens_of(const Output& output) const {
    return std::span(tokens).subspan(output.token_begin, output.token_end - output.token_begin);
  }
};

// Fills `out` from a whole frame and returns an empty string, or returns what is wrong with the
// frame. Never throws on bad bytes.
std::string decode_outputs(std::span<const char> frame, const WireLayout& layout, Outputs& out);

}  // namespace sut
