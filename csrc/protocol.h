#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

// The words and layouts of vLLM's engine-core protocol (vllm/v1/engine/__init__.py and
// core.py), for both of its ends: the dispatcher and the replay engine. Messages are msgpack.
namespace sut::protocol {

// Handshake socket: the engine sends {status: HELLO}, the front-end answers with its addresses,
// and the engine sends {status: READY} once its model is loaded.
inline constexpr std::string_view kStatus = "status";
inline constexpr std::string_view kHello = "HELLO";
inline constexpr std::string_view kReady = "READY";
inline constexpr std::string_view kAddresses = "addresses";
inline constexpr std::string_view kInputs = "inputs";
inline constexpr std::string_view kOutputs = "outputs";
inline constexpr std::string_view kParallelConfig = "parallel_config";

// The identity of an engine's sockets: its data-parallel rank, which is 0 for every engine here.
inline constexpr std::string_view kIdentity{"\0\0", 2};

// Input socket: the engine's ready response first; then requests from the front-end, each a frame
// with its type, one byte, and a frame with its data.
inline constexpr char kAddRequest = 0;    // data: an EngineCoreRequest
inline constexpr char kAbortRequest = 1;  // data: an array of request ids

// EngineCoreRequest, an array. Its sampling parameters are a map without the defaults.
enum RequestField : std::uint32_t {
  kRequestId = 0,
  kPromptTokenIds = 1,
  kSamplingParams = 3,
  kNumRequestFields = 9,
};
inline constexpr std::string_view kMinTokens = "min_tokens";
inline constexpr std::string_view kMaxTokens = "max_tokens";
inline constexpr std::string_view kExtraArgs = "extra_args";

// Our request ids: hexadecimal digits. vLLM takes any string.
inline constexpr std::size_t kRequestIdLength = 16;

// Output socket: one EngineCoreOutputs frame a step, an array.
enum OutputsField : std::uint32_t {
  kEngineIndex = 0,
  kOutputList = 1,
  kSchedulerStats = 2,
  kTimestamp = 3,
  kNumOutputsFields = 9,
};

// EngineCoreOutput, an array in the output list.
enum OutputField : std::uint32_t {
  kOutputRequestId = 0,
  kNewTokenIds = 1,
  kFinishReason = 5,
  kPrefillStats = 11,
  kNumNansInLogits = 13,
  kNumOutputFields = 18,
};

// kNone, a nil on the wire, while the request runs.
enum class FinishReason : std::int8_t {
  kNone = -1,
  kStop = 0,
  kLength = 1,
  kAbort = 2,
  kError = 3,
  kRepetition = 4,
};

// SchedulerStats, a map.
inline constexpr std::string_view kNumRunningReqs = "num_running_reqs";
inline constexpr std::string_view kNumWaitingReqs = "num_waiting_reqs";
inline constexpr std::string_view kKvCacheUsage = "kv_cache_usage";

// Maps in SchedulerStats: hits in the engine's own KV cache and in a connector's, and speculation.
// Each is nil, or counts since the last frame.
inline constexpr std::string_view kPrefixCacheStats = "prefix_cache_stats";
inline constexpr std::string_view kConnectorCacheStats = "connector_prefix_cache_stats";
inline constexpr std::string_view kHits = "hits";
inline constexpr std::string_view kPreemptedHits = "preempted_hits";
inline constexpr std::string_view kSpecDecodingStats = "spec_decoding_stats";
inline constexpr std::string_view kNumDraftTokens = "num_draft_tokens";

// PrefillStats, a map in the first output of each request.
inline constexpr std::string_view kNumCachedTokens = "num_cached_tokens";

// The frame that a dying engine sends in place of outputs. It is not msgpack.
inline constexpr std::string_view kEngineCoreDead = "ENGINE_CORE_DEAD";

}  // namespace sut::protocol
