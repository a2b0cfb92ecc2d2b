// Both ends of the handshake, the front-end and the replay engine, survive any message.
#include <algorithm>
#include <stdexcept>
#include <string_view>

#include "../hello.h"
#include "../protocol.h"
#include "../replay_engine/handshake.h"
#include "../tests/check.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view message(reinterpret_cast<const char*>(data), size);
  if (sut::is_hello(message)) CHECK(message.find(sut::protocol::kHello) != message.npos);
  try {
    const replay::Addresses found = replay::decode_addresses(message);
    const std::string written = sut::addresses_message(found.input, found.output);
    const replay::Addresses again = replay::decode_addresses(written);
    CHECK(again.input == found.input && again.output == found.output);
    CHECK(!sut::is_hello(written));
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
