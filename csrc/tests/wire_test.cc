// Frames in vLLM's format are read; anything else is refused with a reason, without a crash.
#include "../wire.h"

#include <map>
#include <msgpack.hpp>
#include <random>

#include "check.h"

namespace {

using Packer = msgpack::packer<msgpack::sbuffer>;

const sut::WireLayout kLayout;

std::string text_of(sut::RequestId id) {
  std::string text(sut::kRequestIdLength, '\0');
  sut::write_request_id(id, text.data());
  return text;
}

// {"hits": 2, "preempted_hits": 3, "queries": 50, "hits_by_source": {"hits": 70}}
void pack_cache(Packer& p) {
  p.pack_map(4);
  p.pack("hits").pack(2).pack("preempted_hits").pack(3).pack("queries").pack(50);
  p.pack("hits_by_source").pack_map(1).pack("hits").pack(70);
}

// [0, [[id, [7, 300, 70000], nil, nil, nil, 1, "why", nil], [id2, [9], ..., {prefill}]], {stats}, 1.5]
msgpack::sbuffer good_frame() {
  msgpack::sbuffer buffer;
  Packer p(buffer);
  p.pack_array(4);
  p.pack(0);
  p.pack_array(2);
  p.pack_array(8);
  p.pack(text_of({3, 41}));
  p.pack(std::vector<int>{7, 300, 70000});
  for (int i = 0; i < 3; ++i) p.pack_nil();
  p.pack(1);
  p.pack("why");
  p.pack_nil();
  p.pack_array(kLayout.prefill_stats + 1);
  p.pack(text_of({4, 1}));
  p.pack(std::vector<int>{9});
  for (std::uint32_t field = 2; field < kLayout.prefill_stats; ++field) p.pack_nil();
  p.pack_map(2).pack("num_cached_tokens").pack(11).pack("num_local_cached_tokens").pack(11);
  p.pack_map(7);
  p.pack("num_running_reqs");
  p.pack(12);
  p.pack("prefix_cache_stats");
  pack_cache(p);
  p.pack("connector_prefix_cache_stats");
  pack_cache(p);
  p.pack("spec_decoding_stats");
  p.pack_map(3).pack("num_spec_tokens").pack(4).pack("num_draft_tokens").pack(8);
  p.pack("num_running_reqs").pack(99);  // a nested key of the same name is ignored
  p.pack("hits").pack(500);             // and this is none of a cache's
  p.pack("kv_cache_usage");
  p.pack(0.25);
  p.pack("num_waiting_reqs");
  p.pack(5);
  p.pack(1.5);
  return buffer;
}

std::string decode(const msgpack::sbuffer& buffer, sut::Outputs& out) {
  return sut::decode_outputs({buffer.data(), buffer.size()}, kLayout, out);
}

template <typename Pack>
std::string error_of(Pack pack) {
  msgpack::sbuffer buffer;
  Packer p(buffer);
  pack(p);
  sut::Outputs out;
  return decode(buffer, out);
}

void reads_outputs_tokens_and_scheduler_stats() {
  sut::Outputs out;
  const msgpack::sbuffer frame = good_frame();
  for (int again = 0; again < 2; ++again) {  // the second time into used buffers
    CHECK(decode(frame, out).empty());
    CHECK(out.outputs.size() == 2);
    CHECK(out.outputs[0].id.slot == 3 && out.outputs[0].id.use == 41);
    CHECK(out.outputs[0].finish_reason == sut::FinishReason::kLength);
    const auto tokens = out.tokens_of(out.outputs[0]);
    CHECK(tokens.size() == 3 && tokens[0] == 7 && tokens[1] == 300 && tokens[2] == 70000);
    CHECK(out.outputs[1].finish_reason == sut::FinishReason::kNone);
    CHECK(out.tokens_of(out.outputs[1]).size() == 1);
    CHECK(out.scheduler_stats && out.scheduler_stats->running == 12);
    CHECK(out.scheduler_stats->waiting == 5 && out.scheduler_stats->kv_cache_usage == 0.25);
    CHECK(out.shortcuts.num_prefills == 1 && out.shortcuts.num_stats == 1);
    CHECK(out.shortcuts.cached_tokens == 11 && out.shortcuts.cache_hits == 10);
    CHECK(out.shortcuts.draft_tokens == 8);
    CHECK(out.timestamp_s == 1.5);
  }
}

// Newer versions append fields to both arrays. They are skipped, whatever form they have.
void skips_appended_fields() {
  msgpack::sbuffer buffer;
  Packer p(buffer);
  const auto pack_appended = [&] {
    p.pack_map(2).pack("code").pack("x").pack("num_cached_tokens").pack(7);
    p.pack_array(2).pack(8).pack(9);
    p.pack_array(1).pack_array(2).pack(text_of({9, 9})).pack_array(1).pack(5);
    p.pack(1);
    p.pack("why");
  };
  p.pack_array(sut::protocol::kNumOutputsFields + 5).pack(0).pack_array(1);
  p.pack_array(sut::protocol::kNumOutputFields + 5);
  p.pack(text_of({3, 41}));
  p.pack(std::vector<int>{7});
  for (std::uint32_t field = 2; field < sut::protocol::kNumOutputFields; ++field) p.pack_nil();
  pack_appended();
  p.pack_map(1).pack("num_running_reqs").pack(12);
  p.pack(1.5);
  for (std::uint32_t field = 4; field < sut::protocol::kNumOutputsFields; ++field) p.pack_nil();
  pack_appended();

  sut::Outputs out;
  CHECK(decode(buffer, out).empty());
  CHECK(out.outputs.size() == 1 && out.tokens == std::vector<std::int32_t>{7});
  CHECK(out.outputs[0].id.slot == 3);
  CHECK(out.outputs[0].finish_reason == sut::FinishReason::kNone);
  CHECK(out.scheduler_stats && out.scheduler_stats->running == 12);
  CHECK(out.shortcuts.num_prefills == 0 && out.shortcuts.cached_tokens == 0);
  CHECK(out.timestamp_s == 1.5);
}

// [0, [], {"prefix_cache_stats": {"hits": 2^63, "hits": 2^63, ...}}]
void sums_of_huge_counts_do_not_overflow() {
  constexpr std::uint32_t kCount = 20'000;
  msgpack::sbuffer buffer;
  Packer p(buffer);
  p.pack_array(3).pack(0).pack_array(0).pack_map(1).pack("prefix_cache_stats").pack_map(2 * kCount);
  for (std::uint32_t i = 0; i < kCount; ++i)
    p.pack("hits").pack(std::uint64_t{1} << 63).pack("hits").pack(9e14);
  sut::Outputs out;
  CHECK(decode(buffer, out).empty());
  CHECK(out.shortcuts.cache_hits == 2 * std::int64_t{kCount} * 1'000'000'000);
}

void refuses_invalid_outputs() {
  CHECK(!error_of([](Packer& p) { p.pack(5); }).empty());
  CHECK(!error_of([](Packer& p) { p.pack_map(0); }).empty());
  const auto output = [](auto fill) {
    return error_of([&](Packer& p) {
      p.pack_array(2);
      p.pack(0);
      p.pack_array(1);
      fill(p);
    });
  };
  CHECK(!output([](Packer& p) { p.pack(1); }).empty());
  CHECK(!output([](Packer& p) { p.pack_map(0); }).empty());
  CHECK(!output([](Packer& p) { p.pack_array(0); }).empty());
  const auto fields = [&](const std::string& id, auto token) {
    return output([&](Packer& p) {
      p.pack_array(2);
      p.pack(id);
      p.pack_array(1);
      p.pack(token);
    });
  };
  CHECK(fields(text_of({1, 1}), 5).empty());
  CHECK(!fields("short", 5).empty());
  CHECK(!fields("00000000000000zz", 5).empty());
  CHECK(!fields(text_of({1, 1}), -5).empty());
  CHECK(!fields(text_of({1, 1}), 2.5).empty());
  CHECK(!fields(text_of({1, 1}), 1ull << 40).empty());
  CHECK(!fields(text_of({1, 1}), "token").empty());
  CHECK(!fields(text_of({1, 1}), std::vector<int>{5}).empty());
  CHECK(!fields(text_of({1, 1}), std::map<int, int>{{5, 5}}).empty());
  CHECK(!error_of([](Packer& p) { p.pack_array(2).pack(0).pack_nil(); }).empty());
  CHECK(!error_of([](Packer& p) { p.pack_array(2).pack(0).pack_map(0); }).empty());

  const auto ended = [&](auto&& pack_tokens, auto&& pack_reason) {
    return output([&](Packer& p) {
      p.pack_array(kLayout.finish_reason + 1);
      for (std::uint32_t field = 0; field <= kLayout.finish_reason; ++field) {
        if (field == kLayout.request_id)
          p.pack(text_of({1, 1}));
        else if (field == kLayout.new_token_ids)
          pack_tokens(p);
        else if (field == kLayout.finish_reason)
          pack_reason(p);
        else
          p.pack_nil();
      }
    });
  };
  const auto tokens = [](Packer& p) { p.pack_array(0); };
  const auto none = [](Packer& p) { p.pack_nil(); };
  CHECK(ended(tokens, none).empty());
  CHECK(ended(tokens, [](Packer& p) { p.pack(1); }).empty());
  CHECK(!ended(tokens, [](Packer& p) { p.pack("stop"); }).empty());
  CHECK(!ended(tokens, [](Packer& p) { p.pack(1.5); }).empty());
  CHECK(!ended(tokens, [](Packer& p) { p.pack(true); }).empty());
  CHECK(!ended(tokens, [](Packer& p) { p.pack_array(1).pack(1); }).empty());
  CHECK(!ended(tokens, [](Packer& p) { p.pack_map(0); }).empty());
  CHECK(!ended(none, none).empty());
  CHECK(!ended([](Packer& p) { p.pack("x"); }, none).empty());
  CHECK(!ended([](Packer& p) { p.pack_map(0); }, none).empty());
}

void refuses_truncated_and_damaged_frames() {
  const msgpack::sbuffer frame = good_frame();
  sut::Outputs out;
  for (std::size_t size = 0; size < frame.size(); ++size)
    CHECK(!sut::decode_outputs({frame.data(), size}, kLayout, out).empty());
  std::mt19937 random(1);
  for (int round = 0; round < 200'000; ++round) {
    std::string bytes(frame.data(), frame.size());
    for (int n = 0; n < 3; ++n)
      bytes[random() % bytes.size()] = static_cast<char>(random() & 0xff);
    sut::decode_outputs(bytes, kLayout, out);
    for (const auto& output : out.outputs) CHECK(output.token_end <= out.tokens.size());
  }
  std::string deep(1000, '\x91');  // arrays in arrays
  CHECK(!sut::decode_outputs(deep, kLayout, out).empty());
}

void request_ids_round_trip() {
  for (const sut::RequestId id : {sut::RequestId{0, 1}, {0xffffffff, 0}, {123456789, 987654321}}) {
    const auto back = sut::read_request_id(text_of(id));
    CHECK(back && back->slot == id.slot && back->use == id.use);
  }
  CHECK(!sut::read_request_id("0123456789ABCDEF"));
}

}  // namespace

int main() {
  request_ids_round_trip();
  reads_outputs_tokens_and_scheduler_stats();
  skips_appended_fields();
  sums_of_huge_counts_do_not_overflow();
  refuses_invalid_outputs();
  refuses_truncated_and_damaged_frames();
}
