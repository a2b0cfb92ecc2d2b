#pragma once

#include <span>
#include <string>
#include <string_view>

#include "scheduler.h"

namespace replay {

// The endpoints of a front-end's sockets.
struct Addresses {
  std::string input;
  std::string output;
};

// The engine's handshake messages, as msgpack.
std::string hello_message();
std::string ready_message();

// EngineCoreReadyResponse, the first message on the input socket.
std::string ready_response(const Limits& limits, std::string_view vllm_version);

// Reads the front-end's reply to HELLO. Throws std::invalid_argument.
Addresses decode_addresses(std::span<const char> reply);

}  // namespace replay
