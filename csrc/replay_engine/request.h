#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace replay {

// The fields of vLLM's EngineCoreRequest that the engine needs, with vLLM's defaults, which its
// encoder leaves out.
struct Request {
  std::string id;
  std::vector<std::uint32_t> prompt;
  std::uint32_t min_tokens = 0;
  std::optional<std::uint32_t> max_tokens = 16;  // none: up to max_model_len
  bool fails = false;                            // ends with FinishReason::kError and no token
  bool is_cached = false;                        // reports one cached token of its prompt
  std::vector<std::uint32_t> answer = {};        // the answer; empty: by the service model
};

}  // namespace replay
