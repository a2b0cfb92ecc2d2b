#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace replay {

// What the engine needs of vLLM's EngineCoreRequest. The defaults are vLLM's own,
// which its encoder leaves off the wire.
struct Request {
  std::string id;
  std::vector<std::uint32_t> prompt;
  std::uint32_t min_tokens = 0;
  std::optional<std::uint32_t> max_tokens = 16;  // none: up to max_model_len
  bool fails = false;                            // ends with FinishReason::kError, without a token
  std::vector<std::uint32_t> answer = {};        // what to answer; empty: as the service model says
};

}  // namespace replay
