#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sut {

// One sample to run: `id` is the sink's own name for it, `index` its place in the SampleStore.
// (LoadGen's mlperf::QuerySample, without LoadGen.)
struct Sample {
  std::uintptr_t id;
  std::size_t index;
};

// Where answers go. Both calls are made from the dispatcher's I/O thread, the first token's
// before the completion's; `tokens` is valid during the call only. They must not block or throw.
class ResponseSink {
 public:
  virtual void on_first_token(std::uintptr_t id, std::span<const std::int32_t> tokens) = 0;
  virtual void on_complete(std::uintptr_t id, std::span<const std::int32_t> tokens) = 0;

 protected:
  ~ResponseSink() = default;
};

}  // namespace sut
