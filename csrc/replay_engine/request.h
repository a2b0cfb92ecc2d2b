#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../protocol.h"

namespace replay {

inline constexpr std::uint32_t kForeignToken = 0xffff'ffff;  // of no vocabulary

// The fields of vLLM's EngineCoreRequest that the engine needs, with vLLM's defaults, which its
// encoder leaves out; and what a fault makes of it.
struct Request {
  std::string id;
  std::vector<std::uint32_t> prompt;
  std::uint32_t min_tokens = 0;
  std::optional<std::uint32_t> max_tokens = 16;  // none: up to max_model_len
  // Ends at once with this reason and without a token.
  std::optional<sut::protocol::FinishReason> ends_empty = {};
  bool is_cached = false;         // reports one cached token of its prompt
  bool is_endless = false;        // its answer has no end
  bool has_foreign_token = false;  // its first token is kForeignToken
  std::vector<std::uint32_t> answer = {};  // the answer; empty: by the service model
};

}  // namespace replay
