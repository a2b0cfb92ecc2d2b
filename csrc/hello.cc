#include "hello.h"

#include <msgpack.hpp>

#include "protocol.h"
#include "unpack.h"

namespace sut {

using namespace protocol;

bool is_hello(std::span<const char> message) {
  try {
    const msgpack::object_handle handle = unpack(message);
    const msgpack::object& object = handle.get();
    if (object.type != msgpack::type::MAP) return false;
    for (const msgpack::object_kv& pair : object.via.map) {
      if (pair.key.type != msgpack::type::STR || pair.val.type != msgpack::type::STR) continue;
      if (pair.key.as<std::string_view>() == kStatus)
        return pair.val.as<std::string_view>() == kHello;
    }
  } catch (const msgpack::unpack_error&) {
  }
  return false;
}

std::string addresses_message(const std::string& input, const std::string& output) {
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> packer(buffer);
  packer.pack_map(2);
  packer.pack(kAddresses).pack_map(2);
  packer.pack(kInputs).pack_array(1).pack(input);
  packer.pack(kOutputs).pack_array(1).pack(output);
  packer.pack(kParallelConfig).pack_map(0);
  return {buffer.data(), buffer.size()};
}

}  // namespace sut
