#pragma once

#include <zmq.h>

#include <array>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>

#include "socket.h"

// CURVE (ZeroMQ's RFC 26): both ends of a connection prove their key, and its frames are encrypted.
// Keys are 40 characters of Z85.
namespace sut::curve {

inline constexpr std::size_t kKeyLength = 40;
inline constexpr std::size_t kKeyBytes = 32;  // of a decoded key

// The variable that names an engine's key file, which only its user can read: the front-end's
// public key, the engine's public key and the engine's secret key, each on a line. See
// sut/serving/keys.py.
inline constexpr const char* kKeyFileVariable = "SUT_ENGINE_KEYS";

struct KeyPair {
  std::string public_key;
  std::string secret_key;
};

inline KeyPair make_key_pair() {
  std::array<char, kKeyLength + 1> public_key, secret_key;
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0)
    throw SocketError("zmq_curve_keypair");
  return {public_key.data(), secret_key.data()};
}

struct EngineKeys {
  std::string front_end;  // its public key
  KeyPair own;
};

// Throws std::runtime_error.
inline EngineKeys read_engine_keys(const std::string& path) {
  std::ifstream file(path);
  EngineKeys keys;
  for (std::string* key : {&keys.front_end, &keys.own.public_key, &keys.own.secret_key})
    if (!(file >> *key) || key->size() != kKeyLength)
      throw std::runtime_error("cannot read the keys in " + path);
  return keys;
}

// Before the socket connects.
inline void authenticate(Socket& socket, const EngineKeys& keys) {
  socket.set(ZMQ_CURVE_SERVERKEY, keys.front_end);
  socket.set(ZMQ_CURVE_PUBLICKEY, keys.own.public_key);
  socket.set(ZMQ_CURVE_SECRETKEY, keys.own.secret_key);
}

// Before the socket binds. An Admission in the socket's context decides by `domain` and the peer's
// key who may connect. It must exist: without one, libzmq admits every key.
inline void require_authentication(Socket& socket, const std::string& secret_key,
                                   const std::string& domain) {
  socket.set(ZMQ_CURVE_SERVER, 1);
  socket.set(ZMQ_CURVE_SECRETKEY, secret_key);
  socket.set(ZMQ_ZAP_DOMAIN, domain);
}

}  // namespace sut::curve
