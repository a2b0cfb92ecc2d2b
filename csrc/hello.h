#pragma once

#include <span>
#include <string>

namespace sut {

// The front-end's part of the handshake (protocol.h).

// Whether a message is an engine's HELLO. Never throws on bad bytes.
bool is_hello(std::span<const char> message);

// The reply to it: the endpoints of the front-end's other sockets.
std::string addresses_message(const std::string& input, const std::string& output);

}  // namespace sut
