#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sample_store.h"

namespace sut {

// Where vLLM's output fields lie. Read from vLLM's own struct definitions at start-up, because
// the structs travel as arrays and their order is the protocol.
struct WireLayout {
  std::uint32_t outputs;          // in EngineCoreOutputs
  std::uint32_t scheduler_stats;  // in EngineCoreOutputs
  std::uint32_t request_id;       // in EngineCoreOutput
  std::uint32_t new_token_ids;    // in EngineCoreOutput
  std::uint32_t finish_reason;    // in EngineCoreOutput
  std::string running_key;        // in SchedulerStats, which travels as a map
  std::string waiting_key;
  std::string kv_cache_usage_key;
};

// vLLM's FinishReason; kNone while a request goes on.
enum class FinishReason : std::int8_t {
  kNone = -1,
  kStop = 0,
  kLength = 1,
  kAbort = 2,
  kError = 3,
  kRepetition = 4,
};

// A request id names a slot of the in-flight table and which use of it: an answer to an earlier
// use is told from an answer to this one.
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

// One decoded EngineCoreOutputs frame. Kept by its reader and filled again and again, so that
// decoding allocates no more for many outputs than for one once the buffers have grown.
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

  std::span<const std::int32_t> tokens_of(const Output& output) const {
    return std::span(tokens).subspan(output.token_begin, output.token_end - output.token_begin);
  }
};

// Decodes a whole frame or nothing: returns an empty string and fills `out`, or says what is
// wrong with the frame. Never throws on bad bytes.
std::string decode_outputs(std::span<const char> frame, const WireLayout& layout, Outputs& out);

// The frame a dying engine sends in place of outputs. It is not msgpack.
inline constexpr std::string_view kEngineCoreDead = "ENGINE_CORE_DEAD";

}  // namespace sut
