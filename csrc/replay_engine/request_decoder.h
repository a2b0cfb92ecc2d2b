#pragma once

#include <span>
#include <string>
#include <vector>

#include "request.h"

namespace replay {

// Both read the data frame of a request (protocol.h) and throw std::invalid_argument on anything
// else.

// Fields that are not needed are skipped. A request without prompt_token_ids has an empty prompt.
Request decode_add(std::span<const char> frame);

std::vector<std::string> decode_abort(std::span<const char> frame);

}  // namespace replay
