// The replay engine survives any request: it is refused, or it runs to an end within its limits.
// The input is a script: a request or an abort, with its length in two bytes.
#include <map>
#include <stdexcept>
#include <string>

#include "../replay_engine/output_encoder.h"
#include "../replay_engine/request_decoder.h"
#include "../replay_engine/scheduler.h"
#include "../tests/check.h"
#include "../wire.h"
#include "fuzz.h"

namespace {

constexpr replay::Limits kLimits{.max_num_seqs = 4, .max_model_len = 64,
                                 .max_num_batched_tokens = 32};

struct Engine {
  replay::Scheduler scheduler{kLimits, {}};
  replay::OutputEncoder encoder;
  std::map<std::string, std::uint32_t> num_tokens;  // of each running request

  void add(std::span<const char> frame) {
    const replay::Request request = replay::decode_add(frame);
    CHECK(request.prompt.size() <= frame.size() && request.answer.size() <= frame.size());
    scheduler.add(request);
    num_tokens[request.id] = 0;
  }

  void abort(std::span<const char> frame) {
    for (const std::string& id : replay::decode_abort(frame)) {
      scheduler.abort(id);
      num_tokens.erase(id);
    }
  }

  void step() {
    scheduler.begin_step();
    const auto outputs = scheduler.end_step();
    for (const replay::Output& output : outputs) {
      const auto found = num_tokens.find(std::string(output.request_id));
      CHECK(found != num_tokens.end());
      CHECK(++found->second <= kLimits.max_model_len);
      if (output.finish_reason != replay::FinishReason::kNone) num_tokens.erase(found);
    }
    sut::Outputs decoded;
    const std::string error =
        sut::decode_outputs(encoder.encode(outputs, scheduler.stats(), 1.0), {}, decoded);
    CHECK(!error.empty() || decoded.outputs.size() == outputs.size());
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Engine engine;
  std::span<const char> rest(reinterpret_cast<const char*>(data), size);
  while (rest.size() >= 2) {
    const auto first = static_cast<std::uint8_t>(rest[0]);
    const auto second = static_cast<std::uint8_t>(rest[1]);
    const std::size_t length = std::min<std::size_t>((first & 0x7fu) << 8 | second,
                                                     rest.size() - 2);
    const auto frame = rest.subspan(2, length);
    rest = rest.subspan(2 + length);
    try {
      if ((first & 0x80u) != 0)
        engine.abort(frame);
      else
        engine.add(frame);
    } catch (const std::invalid_argument&) {
    }
    if (engine.scheduler.has_work()) engine.step();
  }
  while (engine.scheduler.has_work()) engine.step();
  CHECK(engine.num_tokens.empty());
  return 0;
}
