#include "options.h"

#include <charconv>
#include <cmath>
#include <stdexcept>

namespace replay {
namespace {

[[noreturn]] void reject(std::string_view option, std::string_view value, std::string_view wanted) {
  throw std::invalid_argument(std::string(option) + " is \"" + std::string(value) +
                              "\"; it must be " + std::string(wanted));
}

template <typename Integer>
Integer parse_integer(std::string_view option, std::string_view value, Integer least) {
  Integer number{};
  const auto [end, error] = std::from_chars(value.begin(), value.end(), number);
  if (error != std::errc{} || end != value.end() || number < least) {
    reject(option, value, "an integer of at least " + std::to_string(least));
  }
  return number;
}

double parse_amount(std::string_view option, std::string_view value) {
  double number = 0;
  const auto [end, error] = std::from_chars(value.begin(), value.end(), number);
  if (error != std::errc{} || end != value.end() || !std::isfinite(number) || number < 0) {
    reject(option, value, "a number of at least 0");
  }
  return number;
}

void check(const Options& options) {
  if (options.handshake_address.empty()) throw std::invalid_argument("--handshake is missing");
  if (options.limits.max_num_seqs == 0) throw std::invalid_argument("--max-num-seqs is missing");
  if (options.limits.max_model_len == 0) throw std::invalid_argument("--max-model-len is missing");
  if (options.limits.max_num_batched_tokens == 0) {
    throw std::invalid_argument("--max-num-batched-tokens is missing");
  }
  if (options.limits.max_num_batched_tokens < options.limits.max_num_seqs) {
    throw std::invalid_argument("--max-num-batched-tokens must not be less than --max-num-seqs");
  }
}

}  // namespace

std::string_view usage() {
  return "usage: replay_engine --handshake tcp://HOST:PORT\n"
         "  --max-num-seqs N            sequences that run at once\n"
         "  --max-model-len N           prompt and answer together, in tokens\n"
         "  --max-num-batched-tokens N  tokens computed in one step\n"
         "  --prefill-tokens-per-s F    speed of prefill; 0 (the default): takes no time\n"
         "  --step-base-us F            time of any step, default 0\n"
         "  --step-per-sequence-us F    time added per sequence that decodes, default 0\n"
         "  --seed N                    fixes the length of every answer, default 0\n"
         "  --vllm-version V            the version it reports, default 0.32.0\n"
         "  --fault SPEC                misbehave on command; may be repeated, see README.md\n";
}

Options parse_options(const std::vector<std::string_view>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    const std::string_view option = arguments[i];
    if (i + 1 == arguments.size()) {
      throw std::invalid_argument(std::string(option) + " is unknown or has no value");
    }
    const std::string_view value = arguments[i + 1];
    if (option == "--handshake") {
      options.handshake_address = value;
    } else if (option == "--max-num-seqs") {
      options.limits.max_num_seqs = parse_integer(option, value, 1u);
    } else if (option == "--max-model-len") {
      options.limits.max_model_len = parse_integer(option, value, 2u);
    } else if (option == "--max-num-batched-tokens") {
      options.limits.max_num_batched_tokens = parse_integer(option, value, 1u);
    } else if (option == "--prefill-tokens-per-s") {
      options.model.prefill_tokens_per_s = parse_amount(option, value);
    } else if (option == "--step-base-us") {
      options.model.step_base_us = parse_amount(option, value);
    } else if (option == "--step-per-sequence-us") {
      options.model.step_per_sequence_us = parse_amount(option, value);
    } else if (option == "--seed") {
      options.model.seed = parse_integer(option, value, std::uint64_t{0});
    } else if (option == "--vllm-version") {
      options.vllm_version = value;
    } else if (option == "--fault") {
      options.faults.push_back(parse_fault(value));
    } else {
      throw std::invalid_argument("unknown option " + std::string(option));
    }
  }
  check(options);
  return options;
}

}  // namespace replay
