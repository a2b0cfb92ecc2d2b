#include "output_encoder.h"

#include <bit>
#include <string_view>

#include "../protocol.h"

namespace replay {
namespace {

using namespace sut::protocol;

constexpr std::uint32_t kNumStatsFields = 18;
constexpr char kNil = '\xc0';
constexpr char kFalse = '\xc2';
constexpr char kEmptyMap = '\x80';
constexpr char kEmptyArray = '\x90';

using Packer = msgpack::packer<msgpack::sbuffer>;

void pack_string(Packer& packer, std::string_view text) {
  const auto size = static_cast<std::uint32_t>(text.size());
  packer.pack_str(size);
  packer.pack_str_body(text.data(), size);
}

// msgpack::packer encodes a whole number as an integer; vLLM does not.
void pack_float64(msgpack::sbuffer& buffer, double value) {
  auto bits = std::bit_cast<std::uint64_t>(value);
  char bytes[9] = {'\xcb'};
  for (int i = 8; i > 0; --i, bits >>= 8) bytes[i] = static_cast<char>(bits & 0xff);
  buffer.write(bytes, sizeof bytes);
}

void pack_nils(msgpack::sbuffer& buffer, std::size_t count) {
  constexpr std::string_view kNils = "\xc0\xc0\xc0\xc0\xc0\xc0\xc0\xc0\xc0\xc0";
  buffer.write(kNils.data(), count);
}

// A field of SchedulerStats and the msgpack of its default value.
void pack_default(Packer& packer, msgpack::sbuffer& buffer, std::string_view key, char value) {
  pack_string(packer, key);
  buffer.write(&value, 1);
}

}  // namespace

// vLLM encodes its positional structs completely, defaults included.
std::span<const char> OutputEncoder::encode(std::span<const Output> outputs,
                                            const SchedulerStats& stats, double timestamp_s) {
  buffer_.clear();
  Packer packer(buffer_);
  packer.pack_array(kNumOutputsFields);
  packer.pack_uint32(0);  // kEngineIndex
  packer.pack_array(static_cast<std::uint32_t>(outputs.size()));
  for (const Output& output : outputs) pack(output);
  pack(stats);
  pack_float64(buffer_, timestamp_s);
  pack_nils(buffer_, kNumOutputsFields - kTimestamp - 1);
  return {buffer_.data(), buffer_.size()};
}

void OutputEncoder::pack(const Output& output) {
  Packer packer(buffer_);
  packer.pack_array(kNumOutputFields);
  pack_string(packer, output.request_id);
  packer.pack_array(output.has_token ? 1 : 0);
  if (output.has_token) packer.pack_uint32(output.token);
  pack_nils(buffer_, kFinishReason - kNewTokenIds - 1);
  if (output.finish_reason == FinishReason::kNone) {
    pack_nils(buffer_, 1);
  } else {
    packer.pack_int8(static_cast<std::int8_t>(output.finish_reason));
  }
  pack_nils(buffer_, kPrefillStats - kFinishReason - 1);
  if (output.is_first) {
    pack_prefill_stats(output);
  } else {
    pack_nils(buffer_, 1);
  }
  pack_nils(buffer_, kNumNansInLogits - kPrefillStats - 1);
  packer.pack_uint32(0);
  pack_nils(buffer_, kNumOutputFields - kNumNansInLogits - 1);
}

void OutputEncoder::pack_prefill_stats(const Output& output) {
  Packer packer(buffer_);
  packer.pack_map(6);
  pack_string(packer, "num_prompt_tokens");
  packer.pack_uint32(output.num_prompt_tokens);
  pack_string(packer, "num_computed_tokens");
  packer.pack_uint32(output.num_prompt_tokens - output.num_cached_tokens);
  for (const std::string_view key : {kNumCachedTokens, std::string_view("num_local_cached_tokens")}) {
    pack_string(packer, key);
    packer.pack_uint32(output.num_cached_tokens);
  }
  for (const std::string_view key : {"num_external_cached_tokens", "num_cache_creation_tokens"}) {
    pack_default(packer, buffer_, key, 0);
  }
}

void OutputEncoder::pack_cache_stats(std::uint32_t num_hits) {
  Packer packer(buffer_);
  pack_string(packer, kPrefixCacheStats);
  packer.pack_map(8);
  pack_default(packer, buffer_, "reset", kFalse);
  for (const std::string_view key : {"requests", "queries"}) pack_default(packer, buffer_, key, 0);
  pack_string(packer, kHits);
  packer.pack_uint32(num_hits);
  for (const std::string_view key : {std::string_view("preempted_requests"),
                                     std::string_view("preempted_queries"), kPreemptedHits}) {
    pack_default(packer, buffer_, key, 0);
  }
  pack_default(packer, buffer_, "hits_by_source", kEmptyMap);
}

void OutputEncoder::pack_spec_decoding_stats(std::uint32_t num_draft_tokens) {
  Packer packer(buffer_);
  if (num_draft_tokens == 0) return pack_default(packer, buffer_, kSpecDecodingStats, kNil);
  pack_string(packer, kSpecDecodingStats);
  packer.pack_map(6);
  for (const std::string_view key : {std::string_view("num_spec_tokens"),
                                     std::string_view("num_drafts"), kNumDraftTokens}) {
    pack_string(packer, key);
    packer.pack_uint32(num_draft_tokens);
  }
  pack_default(packer, buffer_, "num_accepted_tokens", 0);
  for (const std::string_view key : {"num_accepted_tokens_per_pos", "num_draft_tokens_per_pos"}) {
    pack_default(packer, buffer_, key, kEmptyArray);
  }
}

void OutputEncoder::pack(const SchedulerStats& stats) {
  Packer packer(buffer_);
  packer.pack_map(kNumStatsFields);
  pack_string(packer, kNumRunningReqs);
  packer.pack_uint32(stats.num_running);
  pack_string(packer, kNumWaitingReqs);
  packer.pack_uint32(stats.num_waiting);
  pack_default(packer, buffer_, "num_skipped_waiting_reqs", 0);
  pack_default(packer, buffer_, "num_kv_fetch_reqs_by_stage", kEmptyMap);
  pack_default(packer, buffer_, "step_counter", 0);
  pack_default(packer, buffer_, "current_wave", 0);
  pack_string(packer, kKvCacheUsage);
  pack_float64(buffer_, stats.kv_cache_usage);
  pack_default(packer, buffer_, "iteration_details", kNil);
  pack_cache_stats(stats.num_cache_hits);
  pack_default(packer, buffer_, kConnectorCacheStats, kNil);
  pack_default(packer, buffer_, "kv_cache_eviction_events", kEmptyArray);
  pack_spec_decoding_stats(stats.num_draft_tokens);
  pack_default(packer, buffer_, "kv_connector_stats", kNil);
  pack_default(packer, buffer_, "ec_connector_stats", kNil);
  pack_default(packer, buffer_, "waiting_lora_adapters", kEmptyMap);
  pack_default(packer, buffer_, "running_lora_adapters", kEmptyMap);
  pack_default(packer, buffer_, "cudagraph_stats", kNil);
  pack_default(packer, buffer_, "perf_stats", kNil);
}

}  // namespace replay
