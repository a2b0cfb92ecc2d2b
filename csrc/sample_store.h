#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sut {

// Every sample's encoded engine-core request, in one block of memory. It is filled, then sealed
// before a dispatcher uses it, so any thread reads it without a lock.
class SampleStore {
 public:
  struct Request {
    std::string_view bytes;  // msgpack of one EngineCoreRequest
    std::size_t id_offset;   // of its request id in `bytes`
    std::uint32_t num_prompt_tokens;
  };

  // Throws std::invalid_argument unless a 16-character msgpack string starts at `id_offset`, and
  // std::logic_error once sealed.
  void add(std::string_view request, std::size_t id_offset, std::uint32_t num_prompt_tokens);

  void seal() { sealed_ = true; }

  std::size_t size() const { return entries_.size(); }
  std::size_t num_bytes() const { return bytes_.size(); }
  Request operator[](std::size_t sample) const;

 private:
  struct Entry {
    std::size_t begin;
    std::uint32_t length;
    std::uint32_t id_offset;
    std::uint32_t num_prompt_tokens;
  };

  bool sealed_ = false;
  std::string bytes_;
  std::vector<Entry> entries_;
};

}  // namespace sut
