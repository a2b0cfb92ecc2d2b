#include "handshake.h"

#include <msgpack.hpp>
#include <stdexcept>

#include "../protocol.h"
#include "../unpack.h"

namespace replay {
namespace {

using namespace sut::protocol;

constexpr std::uint32_t kBlockSize = 16;  // tokens per KV block, vLLM's default

using Packer = msgpack::packer<msgpack::sbuffer>;

std::string status_message(std::string_view status) {
  msgpack::sbuffer buffer;
  Packer packer(buffer);
  packer.pack_map(3);
  packer.pack(kStatus).pack(status).pack("local").pack(false).pack("headless").pack(true);
  return {buffer.data(), buffer.size()};
}

const msgpack::object& member(const msgpack::object& map, std::string_view key) {
  if (map.type == msgpack::type::MAP) {
    for (const msgpack::object_kv& item : map.via.map) {
      if (item.key.type == msgpack::type::STR && item.key.as<std::string_view>() == key) {
        return item.val;
      }
    }
  }
  throw std::invalid_argument("front-end's reply to HELLO has no key '" + std::string(key) + "'");
}

std::string only_address(const msgpack::object& list) {
  const auto addresses = list.as<std::vector<std::string>>();
  if (addresses.size() != 1) {
    throw std::invalid_argument("front-end's reply to HELLO must have one address of each kind");
  }
  return addresses.front();
}

}  // namespace

std::string hello_message() { return status_message(kHello); }

std::string ready_message() { return status_message(kReady); }

std::string ready_response(const Limits& limits, std::string_view vllm_version) {
  msgpack::sbuffer buffer;
  Packer packer(buffer);
  packer.pack_map(19);
  packer.pack("max_model_len").pack(limits.max_model_len);
  packer.pack("num_gpu_blocks").pack(limits.kv_cache_size_tokens() / kBlockSize);
  packer.pack("block_size").pack(kBlockSize);
  packer.pack("dp_stats_address").pack_nil();
  packer.pack("dtype").pack("bfloat16");
  packer.pack("vllm_version").pack(vllm_version);
  packer.pack("world_size").pack(1);
  packer.pack("data_parallel_size").pack(1);
  packer.pack("tensor_parallel_size").pack(1);
  packer.pack("pipeline_parallel_size").pack(1);
  packer.pack("decode_context_parallel_size").pack(1);
  packer.pack("data_parallel_rank").pack(0);
  packer.pack("max_num_seqs").pack(limits.max_num_seqs);
  packer.pack("max_num_batched_tokens").pack(limits.max_num_batched_tokens);
  packer.pack("instance_id").pack("replay_engine");
  packer.pack("supports_lora").pack(false);
  packer.pack("max_loras").pack(0);
  packer.pack("kv_cache_size_tokens").pack(limits.kv_cache_size_tokens());
  packer.pack("kv_cache_max_concurrency").pack(static_cast<double>(limits.max_num_seqs));
  return {buffer.data(), buffer.size()};
}

Addresses decode_addresses(std::span<const char> reply) {
  try {
    const msgpack::object_handle handle = sut::unpack(reply);
    const msgpack::object& addresses = member(handle.get(), kAddresses);
    return {.input = only_address(member(addresses, kInputs)),
            .output = only_address(member(addresses, kOutputs))};
  } catch (const msgpack::type_error&) {
    throw std::invalid_argument("front-end's addresses are not lists of strings");
  } catch (const msgpack::unpack_error&) {
    throw std::invalid_argument("front-end's reply to HELLO is not msgpack");
  }
}

}  // namespace replay
