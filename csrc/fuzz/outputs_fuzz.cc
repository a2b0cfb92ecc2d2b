// Any frame of outputs is either refused, or read as msgpack's own reader reads it.
#include <algorithm>
#include <limits>
#include <msgpack.hpp>
#include <vector>

#include "../tests/check.h"
#include "../wire.h"
#include "fuzz.h"

namespace {

using msgpack::type::ARRAY;

const sut::WireLayout kLayout;

std::span<const msgpack::object> items(const msgpack::object& array) {
  CHECK(array.type == ARRAY);
  return {array.via.array.ptr, array.via.array.size};
}

void check_output(const msgpack::object& expected, const sut::Outputs& out,
                  const sut::Outputs::Output& found) {
  const auto fields = items(expected);
  CHECK(fields.size() > kLayout.request_id);
  char id[sut::kRequestIdLength];
  sut::write_request_id(found.id, id);
  CHECK(fields[kLayout.request_id].as<std::string_view>() == std::string_view(id, sizeof id));

  std::vector<std::int32_t> tokens;
  if (fields.size() > kLayout.new_token_ids)
    for (const msgpack::object& token : items(fields[kLayout.new_token_ids]))
      tokens.push_back(token.as<std::int32_t>());
  CHECK(std::ranges::equal(tokens, out.tokens_of(found)));

  auto reason = sut::FinishReason::kNone;
  if (fields.size() > kLayout.finish_reason && !fields[kLayout.finish_reason].is_nil())
    reason = static_cast<sut::FinishReason>(fields[kLayout.finish_reason].as<std::uint8_t>());
  CHECK(reason == found.finish_reason);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static sut::Outputs out;  // reused, as a reader of many frames does
  const std::span<const char> frame(reinterpret_cast<const char*>(data), size);
  const std::string error = sut::decode_outputs(frame, kLayout, out);
  CHECK(out.tokens.size() <= size && out.outputs.size() <= size);
  if (!error.empty()) return 0;

  const msgpack::object_handle handle = msgpack::unpack(frame.data(), frame.size());
  const auto fields = items(handle.get());
  const auto outputs = fields.size() > kLayout.outputs ? items(fields[kLayout.outputs])
                                                       : std::span<const msgpack::object>();
  CHECK(outputs.size() == out.outputs.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) check_output(outputs[i], out, out.outputs[i]);

  const sut::Shortcuts& found = out.shortcuts;
  CHECK(std::min({found.num_prefills, found.num_stats, found.cached_tokens, found.cache_hits,
                  found.draft_tokens}) >= 0);
  CHECK(static_cast<std::size_t>(found.num_prefills) <= out.outputs.size());
  CHECK(found.num_stats == out.scheduler_stats.has_value());
  if (out.scheduler_stats) {
    CHECK(out.scheduler_stats->running >= 0 && out.scheduler_stats->waiting >= 0);
    CHECK(out.scheduler_stats->kv_cache_usage >= 0 && out.scheduler_stats->kv_cache_usage <= 1);
  }
  return 0;
}
