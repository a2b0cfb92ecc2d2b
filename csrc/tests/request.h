#pragma once

#include <msgpack.hpp>
#include <string>
#include <vector>

#include "../protocol.h"

// The msgpack of an EngineCoreRequest for exactly `num_tokens` tokens. Its id is all zeros and
// starts at byte 2.
inline std::string encode_request(const std::vector<int>& prompt, std::size_t num_tokens) {
  using namespace sut::protocol;
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> p(buffer);
  p.pack_array(kNumRequestFields);
  p.pack(std::string(kRequestIdLength, '0'));
  p.pack(prompt);
  p.pack_nil();
  p.pack_map(2).pack(kMinTokens).pack(num_tokens).pack(kMaxTokens).pack(num_tokens);
  p.pack_nil();
  p.pack(0.0);  // arrival_time
  for (int i = 0; i < 3; ++i) p.pack_nil();
  return {buffer.data(), buffer.size()};
}
