#include "wire.h"

#include <algorithm>
#include <array>
#include <limits>
#include <msgpack.hpp>

namespace sut {
namespace {

constexpr std::size_t kMaxDepth = 32;  // vLLM's outputs nest 5 deep
constexpr double kMaxCount = 1e9;  // so that no sum of a frame's counts overflows
constexpr std::size_t kHexDigits = kRequestIdLength / 2;

void write_hex(std::uint32_t value, char* out) {
  for (std::size_t i = kHexDigits; i-- > 0; value >>= 4) out[i] = "0123456789abcdef"[value & 0xf];
}

std::optional<std::uint32_t> read_hex(std::string_view text) {
  std::uint32_t value = 0;
  for (const char c : text) {
    if (c >= '0' && c <= '9')
      value = value << 4 | static_cast<std::uint32_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      value = value << 4 | static_cast<std::uint32_t>(c - 'a' + 10);
    else
      return std::nullopt;
  }
  return value;
}

// Walks one EngineCoreOutputs frame. `depth_` is the number of open containers and `index_[d]`
// the position in the container at depth d, so (index_[1], index_[2], ...) is the path of the
// visited value:
//   [outputs][i][request_id | finish_reason]   an output's field
//   [outputs][i][new_token_ids][j]             a token id
//   [outputs][i][prefill_stats]{key: value}    of a request's first output
//   [timestamp]                                when the engine made the frame
//   [scheduler_stats]{key: value}              the scheduler's statistics
//   [scheduler_stats]{key: {key: value}}       its caches and its speculation
class OutputsVisitor : public msgpack::null_visitor {
 public:
  OutputsVisitor(const WireLayout& layout, Outputs& out) : layout_(layout), out_(out) {}

  const std::string& error() const { return error_; }

  bool visit_nil() { return in_output(layout_.finish_reason) || on_scalar(); }
  bool visit_boolean(bool) { return on_scalar(); }
  bool visit_bin(const char*, std::uint32_t) { return on_scalar(); }
  bool visit_ext(const char*, std::uint32_t) { return on_scalar(); }
  bool visit_float32(float value) { return on_number(value); }
  bool visit_float64(double value) { return on_number(value); }

  bool visit_negative_integer(std::int64_t value) {
    if (at_tokens()) return fail("negative token id");
    if (in_output(layout_.finish_reason)) return fail("negative finish_reason");
    return on_number(static_cast<double>(value));
  }

  bool visit_positive_integer(std::uint64_t value) {
    if (at_tokens()) {
      if (value > std::numeric_limits<std::int32_t>::max()) return fail("token id above 2^31 - 1");
      out_.tokens.push_back(static_cast<std::int32_t>(value));
      return true;
    }
    if (in_output(layout_.finish_reason)) {
      if (value > static_cast<std::uint64_t>(FinishReason::kRepetition))
        return fail("unknown finish_reason " + std::to_string(value));
      current_.finish_reason = static_cast<FinishReason>(value);
      return true;
    }
    return on_number(static_cast<double>(value));
  }

  bool visit_str(const char* text, std::uint32_t size) {
    const std::string_view value(text, size);
    if (in_output(layout_.request_id)) {
      const auto id = read_request_id(value);
      if (!id) return fail("unknown request id '" + std::string(value) + "'");
      current_.id = *id;
      has_id_ = true;
      return true;
    }
    if (map_key_) {
      if (in_scheduler_stats())
        stats_key_ = value;
      else if (in_prefill_stats() || in_counts())
        count_key_ = value;
    }
    return on_scalar();
  }

  bool start_array(std::uint32_t) {
    if (depth_ + 1 >= kMaxDepth) return fail("nested too deeply");
    if (depth_ == 0) saw_outputs_struct_ = true;
    if (at_tokens()) return fail("token id is not an integer");
    if (in_output(layout_.finish_reason)) return fail("finish_reason is not an integer");
    index_[++depth_] = kNothingYet;
    if (at_output()) {
      current_ = {{}, position(), position(), FinishReason::kNone};
      has_id_ = false;
    }
    if (at_tokens()) current_.token_begin = position();
    return true;
  }
  bool start_array_item() {
    ++index_[depth_];
    return true;
  }
  bool end_array() {
    if (at_tokens()) current_.token_end = position();
    if (at_output()) {
      if (!has_id_) return fail("output without a request id");
      out_.outputs.push_back(current_);
    }
    --depth_;
    return true;
  }

  bool start_map(std::uint32_t) {
    if (depth_ + 1 >= kMaxDepth) return fail("nested too deeply");
    if (at_tokens()) return fail("token id is not an integer");
    if (in_output(layout_.finish_reason)) return fail("finish_reason is not an integer");
    index_[++depth_] = kNothingYet;
    if (depth_ == 2 && in_outputs()) return fail("outputs is not an array");
    if (at_output()) return fail("output is not an array");
    if (at_tokens()) return fail("new_token_ids is not an array");
    if (in_scheduler_stats()) {
      out_.scheduler_stats.emplace();
      ++out_.shortcuts.num_stats;
    }
    if (in_prefill_stats()) ++out_.shortcuts.num_prefills;
    return true;
  }
  bool start_map_key() {
    map_key_ = true;
    return true;
  }
  bool end_map_key() {
    map_key_ = false;
    return true;
  }
  bool end_map() {
    --depth_;
    return true;
  }

  bool saw_outputs_struct() const { return saw_outputs_struct_; }

 private:
  static constexpr std::uint32_t kNothingYet = ~0u;

  bool fail(std::string error) {
    error_ = std::move(error);
    return false;
  }
  std::uint32_t position() const { return static_cast<std::uint32_t>(out_.tokens.size()); }

  bool in_outputs() const { return index_[1] == layout_.outputs; }
  bool at_output() const { return depth_ == 3 && in_outputs(); }
  bool at_tokens() const {
    return depth_ == 4 && in_outputs() && index_[3] == layout_.new_token_ids;
  }
  bool in_output(std::uint32_t field) const { return at_output() && index_[3] == field; }
  bool in_prefill_stats() const {
    return depth_ == 4 && in_outputs() && index_[3] == layout_.prefill_stats;
  }
  bool in_scheduler_stats() const { return depth_ == 2 && index_[1] == layout_.scheduler_stats; }
  bool in_counts() const { return depth_ == 3 && index_[1] == layout_.scheduler_stats; }

  bool on_number(double value) {
    if (map_key_) return on_scalar();
    if (depth_ == 1 && index_[1] == layout_.timestamp) out_.timestamp_s = value;
    if (in_scheduler_stats() && out_.scheduler_stats) {
      SchedulerStats& stats = *out_.scheduler_stats;
      if (stats_key_ == layout_.running_key) stats.running = count_of(value);
      if (stats_key_ == layout_.waiting_key) stats.waiting = count_of(value);
      if (stats_key_ == layout_.kv_cache_usage_key) stats.kv_cache_usage = share_of(value);
    } else if (value != 0 && (in_prefill_stats() || in_counts())) {
      count_shortcut(value);
    }
    return on_scalar();
  }

  // A value of one of the maps with counts that is not 0.
  void count_shortcut(double value) {
    using namespace protocol;
    Shortcuts& found = out_.shortcuts;
    const std::int64_t count = std::max<std::int64_t>(1, count_of(value));
    if (in_prefill_stats()) {
      if (count_key_ == kNumCachedTokens) found.cached_tokens += count;
    } else if (stats_key_ == kPrefixCacheStats || stats_key_ == kConnectorCacheStats) {
      if (count_key_ == kHits || count_key_ == kPreemptedHits) found.cache_hits += count;
    } else if (stats_key_ == kSpecDecodingStats) {
      if (count_key_ == kNumDraftTokens) found.draft_tokens += count;
    }
  }

  static std::int64_t count_of(double value) {
    return value >= 0 ? static_cast<std::int64_t>(std::min(value, kMaxCount)) : 0;
  }

  static double share_of(double value) { return value >= 0 ? std::min(value, 1.0) : 0; }

  // A value that no rule above consumed. Every place that must hold another type rejects it.
  bool on_scalar() {
    if (at_tokens()) return fail("token id is not an integer");
    if (in_output(layout_.new_token_ids)) return fail("new_token_ids is not an array");
    if (in_output(layout_.finish_reason)) return fail("finish_reason is not an integer");
    if (depth_ == 1 && in_outputs()) return fail("outputs is not an array");
    if (depth_ == 2 && in_outputs()) return fail("output is not an array");
    if (depth_ == 0) return fail("not an array");
    return true;
  }

  const WireLayout& layout_;
  Outputs& out_;
  std::string error_;
  std::size_t depth_ = 0;
  std::array<std::uint32_t, kMaxDepth> index_{};
  Outputs::Output current_{};
  bool has_id_ = false;
  bool map_key_ = false;
  bool saw_outputs_struct_ = false;
  std::string_view stats_key_;  // of the scheduler's statistics
  std::string_view count_key_;  // of a map with counts
};

}  // namespace

void write_request_id(RequestId id, char* out) {
  write_hex(id.use, out);
  write_hex(id.slot, out + kHexDigits);
}

std::optional<RequestId> read_request_id(std::string_view text) {
  if (text.size() != kRequestIdLength) return std::nullopt;
  const auto use = read_hex(text.substr(0, kHexDigits));
  const auto slot = read_hex(text.substr(kHexDigits));
  if (!use || !slot) return std::nullopt;
  return RequestId{*slot, *use};
}

std::string decode_outputs(std::span<const char> frame, const WireLayout& layout, Outputs& out) {
  out.outputs.clear();
  out.tokens.clear();
  out.scheduler_stats.reset();
  out.shortcuts = {};
  out.timestamp_s = 0;

  OutputsVisitor visitor(layout, out);
  std::size_t offset = 0;
  const bool parsed = msgpack::parse(frame.data(), frame.size(), offset, visitor);
  if (!visitor.error().empty()) return visitor.error();
  if (!parsed) return "not a complete msgpack value";
  if (offset != frame.size()) return "bytes after the msgpack value";
  if (!visitor.saw_outputs_struct()) return "not an array";
  return {};
}

}  // namespace sut
