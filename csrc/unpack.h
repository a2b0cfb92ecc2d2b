#pragma once

#include <cstddef>
#include <msgpack.hpp>
#include <span>

namespace sut {

inline constexpr std::size_t kMaxUnpackDepth = 32;  // vLLM's handshake messages nest 3 deep

// The value of a small message. Throws msgpack::unpack_error.
//
// A container has at most as many elements as the message has bytes, whatever length it claims:
// without the limit msgpack allocates for the claim.
inline msgpack::object_handle unpack(std::span<const char> message) {
  const std::size_t most = message.size();
  const msgpack::unpack_limit limit(most, most, most, most, most, kMaxUnpackDepth);
  return msgpack::unpack(message.data(), message.size(), nullptr, nullptr, limit);
}

}  // namespace sut
