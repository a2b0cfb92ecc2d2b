#include "sample_store.h"

#include <cassert>
#include <limits>
#include <stdexcept>

#include "protocol.h"

namespace sut {

using protocol::kRequestIdLength;

void SampleStore::add(std::string_view request, std::size_t id_offset,
                      std::uint32_t num_prompt_tokens) {
  if (sealed_) throw std::logic_error("cannot add a sample: a dispatcher uses this store");
  constexpr char kFixStr16 = static_cast<char>(0xa0 | kRequestIdLength);
  if (request.size() > std::numeric_limits<std::uint32_t>::max())
    throw std::invalid_argument("encoded request is larger than 4 GiB");
  if (id_offset == 0 || id_offset > request.size() ||
      request.size() - id_offset < kRequestIdLength || request[id_offset - 1] != kFixStr16)
    throw std::invalid_argument("encoded request has no 16-character request id at byte " +
                                std::to_string(id_offset));
  entries_.push_back({bytes_.size(), static_cast<std::uint32_t>(request.size()),
                      static_cast<std::uint32_t>(id_offset), num_prompt_tokens});
  bytes_.append(request);
}

SampleStore::Request SampleStore::operator[](std::size_t sample) const {
  assert(sample < entries_.size());
  const Entry& entry = entries_[sample];
  return {std::string_view(bytes_).substr(entry.begin, entry.length), entry.id_offset,
          entry.num_prompt_tokens};
}

}  // namespace sut
