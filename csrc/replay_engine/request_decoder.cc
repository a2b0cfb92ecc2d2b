#include "request_decoder.h"

#include <algorithm>
#include <limits>
#include <msgpack.hpp>
#include <stdexcept>
#include <string_view>

#include "../protocol.h"
#include "../unpack.h"

namespace replay {
namespace {

using namespace sut::protocol;

// Reads a Request during the parse: a prompt is thousands of integers, and an object for each
// would be slow.
class RequestVisitor : public msgpack::null_visitor {
 public:
  RequestVisitor(Request& request, std::size_t frame_size)
      : request_(request), frame_size_(frame_size) {}

  bool has_id() const { return !request_.id.empty(); }

  bool start_array(std::uint32_t size) {
    ++depth_;
    if (in_prompt()) request_.prompt.reserve(std::min<std::size_t>(size, frame_size_));
    if (in_answer()) request_.answer.reserve(std::min<std::size_t>(size, frame_size_));
    return true;
  }
  bool start_array_item() {
    if (depth_ == 1) ++field_;
    return true;
  }
  bool end_array() { return --depth_ >= 0; }

  bool start_map(std::uint32_t) { return ++depth_ > 1; }
  bool start_map_key() {
    if (in_sampling_params() || in_extra_args()) in_key_ = true;
    return true;
  }
  bool end_map_key() {
    if (in_sampling_params() || in_extra_args()) in_key_ = false;
    return true;
  }
  bool end_map() { return --depth_ >= 0; }

  bool visit_str(const char* text, std::uint32_t size) {
    if (depth_ == 1 && field_ == kRequestId) request_.id.assign(text, size);
    if (in_sampling_params() && in_key_) key_ = std::string_view(text, size);
    if (in_extra_args() && in_key_) extra_key_ = std::string_view(text, size);
    return true;
  }
  bool visit_nil() {
    if (in_sampling_params() && !in_key_ && key_ == kMaxTokens) request_.max_tokens.reset();
    return true;
  }
  bool visit_positive_integer(std::uint64_t value) {
    if (!in_prompt() && !in_answer() && !in_sampling_params()) return true;
    const auto number = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(value, std::numeric_limits<std::uint32_t>::max()));
    if (in_prompt()) {
      request_.prompt.push_back(number);
    } else if (in_answer()) {
      request_.answer.push_back(number);
    } else if (key_ == kMinTokens) {
      request_.min_tokens = number;
    } else if (key_ == kMaxTokens) {
      request_.max_tokens = number;
    }
    return true;
  }
  bool visit_negative_integer(std::int64_t) { return field_ != kPromptTokenIds; }

 private:
  bool in_prompt() const { return depth_ == 2 && field_ == kPromptTokenIds; }
  bool in_sampling_params() const { return depth_ == 2 && field_ == kSamplingParams; }
  bool in_extra_args() const {
    return depth_ == 3 && field_ == kSamplingParams && key_ == kExtraArgs;
  }
  bool in_answer() const {
    return depth_ == 4 && field_ == kSamplingParams && key_ == kExtraArgs &&
           extra_key_ == "answer";
  }

  Request& request_;
  const std::size_t frame_size_;
  int depth_ = 0;              // number of open containers; 1 is the request's array
  std::uint32_t field_ = ~0u;  // position in the request's array
  bool in_key_ = false;
  std::string_view key_;        // in the sampling parameters; points into the frame
  std::string_view extra_key_;  // in their extra_args
};

}  // namespace

Request decode_add(std::span<const char> frame) {
  Request request;
  RequestVisitor visitor(request, frame.size());
  bool parsed = false;
  try {
    parsed = msgpack::parse(frame.data(), frame.size(), visitor);
  } catch (const msgpack::unpack_error&) {
  }
  if (!parsed || !visitor.has_id()) {
    throw std::invalid_argument("invalid ADD request (" + std::to_string(frame.size()) +
                                " bytes): expected an EngineCoreRequest");
  }
  return request;
}

std::vector<std::string> decode_abort(std::span<const char> frame) {
  try {
    return sut::unpack(frame).get().as<std::vector<std::string>>();
  } catch (const std::exception&) {
    throw std::invalid_argument("invalid ABORT request (" + std::to_string(frame.size()) +
                                " bytes): expected a list of request ids");
  }
}

}  // namespace replay
