#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sut {

// One sample to run: `id` identifies it to the sink, `index` is its position in the SampleStore.
// (LoadGen's mlperf::QuerySample, without LoadGen.)
struct Sample {
  std::uintptr_t id;
  std::size_t index;
};

// Receives answers. The dispatcher's I/O thread makes both calls, the first token's before the
// completion's; `tokens` is valid only during the call. Neither may block or throw.
class ResponseSink {
 public:
  virtual void on_first_token(std::uintptr_t id, std::span<const std::int32_t> tokens) = 0;
  virtual void on_complete(std::uintptr_t id, std::span<const std::int32_t> tokens) = 0;

 protected:
  ~ResponseSink() = default;
};

}  // namespace sut
