#pragma once

#include <span>
#include <string>
#include <string_view>

#include "scheduler.h"

namespace replay {

// Where a front-end's sockets are.
struct Addresses {
  std::string input;
  std::string output;
};

// The engine's identity on the handshake and input sockets: index 0, two bytes little-endian.
inline constexpr std::string_view kIdentity{"\0\0", 2};

// The messages of vLLM's start-up handshake (vllm/v1/engine/core.py), as msgpack.
std::string hello_message();
std::string ready_message();

// EngineCoreReadyResponse: the first message on the input socket.
std::string ready_response(const Limits& limits, std::string_view vllm_version);

// The front-end's reply to HELLO. Throws std::invalid_argument if it names no addresses.
Addresses decode_addresses(std::span<const char> reply);

}  // namespace replay
