// A token event allocates nothing: decoding, finding the sample, storing the token, counting it.
// A frame of any number of events costs one allocation, msgpack's stack.
#include <cstdlib>
#include <msgpack.hpp>
#include <new>

#include "../in_flight.h"
#include "../stats.h"
#include "../wire.h"
#include "check.h"

namespace {
std::size_t num_allocations = 0;
}

// GCC inlines one of these and not the other, and then sees a mismatch.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
void* operator new(std::size_t size) {
  ++num_allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

constexpr std::size_t kNumSequences = 64;
constexpr std::size_t kNumTokens = 100;

const sut::WireLayout kLayout;

// The frame of one step: one new token for every sequence, and the scheduler's statistics.
msgpack::sbuffer step_frame(const std::vector<sut::RequestId>& ids) {
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> p(buffer);
  p.pack_array(4);
  p.pack(0);
  p.pack_array(static_cast<std::uint32_t>(ids.size()));
  for (const sut::RequestId id : ids) {
    std::string text(sut::kRequestIdLength, '\0');
    sut::write_request_id(id, text.data());
    p.pack_array(2);
    p.pack(text);
    p.pack(std::vector<int>{70'000});
  }
  p.pack_map(1);
  p.pack("num_running_reqs");
  p.pack(ids.size());
  p.pack(1.5);
  return buffer;
}

}  // namespace

int main() {
  sut::InFlightTable table(kNumTokens, 1);
  std::vector<sut::RequestId> ids;
  for (std::size_t i = 0; i < kNumSequences; ++i) ids.push_back(table.take());
  const msgpack::sbuffer frame = step_frame(ids);
  sut::ReplicaStats stats;
  sut::Outputs outputs;
  const auto step = [&] {
    CHECK(sut::decode_outputs({frame.data(), frame.size()}, kLayout, outputs).empty());
    CHECK(outputs.outputs.size() == kNumSequences);
    for (const sut::Outputs::Output& output : outputs.outputs) {
      sut::InFlightTable::Slot* slot = table.find(output.id);
      const auto tokens = outputs.tokens_of(output);
      slot->tokens.insert(slot->tokens.end(), tokens.begin(), tokens.end());
      stats.add_tokens(tokens.size());
    }
    stats.set_scheduler(*outputs.scheduler_stats);
  };
  step();  // the buffers grow
  const std::size_t before = num_allocations;
  for (std::size_t i = 1; i < kNumTokens; ++i) step();
  CHECK(num_allocations - before <= kNumTokens - 1);
  CHECK(table.find(ids[0])->tokens.size() == kNumTokens);
}
