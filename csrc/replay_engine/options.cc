#include "options.h"

#include <charconv>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace replay {
namespace {

[[noreturn]] void reject(std::string_view option, std::string_view value, std::string_view wanted) {
  throw std::invalid_argument("invalid value '" + std::string(value) + "' for " +
                              std::string(option) + ": expected " + std::string(wanted));
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

double parse_probability(std::string_view option, std::string_view value) {
  const double number = parse_amount(option, value);
  if (number > 1) reject(option, value, "a number of 0 to 1");
  return number;
}

void check(const Options& options) {
  const Limits& limits = options.limits;
  const std::pair<const char*, bool> required[] = {
      {"--handshake", !options.handshake_address.empty()},
      {"--max-num-seqs", limits.max_num_seqs > 0},
      {"--max-model-len", limits.max_model_len > 0},
      {"--max-num-batched-tokens", limits.max_num_batched_tokens > 0}};
  for (const auto& [name, is_set] : required) {
    if (!is_set) throw std::invalid_argument(std::string("missing option ") + name);
  }
  if (limits.max_num_batched_tokens < limits.max_num_seqs) {
    throw std::invalid_argument("--max-num-batched-tokens must be at least --max-num-seqs");
  }
}

}  // namespace

std::string_view usage() {
  return "usage: replay_engine --handshake tcp://HOST:PORT\n"
         "  --max-num-seqs N            maximum number of running sequences\n"
         "  --max-model-len N           maximum length of prompt and answer together, in tokens\n"
         "  --max-num-batched-tokens N  maximum number of tokens computed in one step\n"
         "  --prefill-tokens-per-s F    speed of prefill; 0 (default): takes no time\n"
         "  --step-base-us F            duration of every step (default: 0)\n"
         "  --step-per-sequence-us F    added duration per decoding sequence (default: 0)\n"
         "  --step-per-context-token-us F  added duration per token of the decoding sequences' prompts\n"
         "                              and answers so far (default: 0)\n"
         "  --step-noise F              standard deviation of the logarithm of a step's duration\n"
         "                              (default: 0)\n"
         "  --hiccup-probability F      of a step, 0 to 1 (default: 0)\n"
         "  --hiccup-us F               added duration of a step with a hiccup (default: 0)\n"
         "  --pad-decodes-to N          a step takes as long as with the next multiple of N decoding\n"
         "                              sequences (default: 1)\n"
         "  --seed N                    seed of answer lengths, noise and hiccups (default: 0)\n"
         "  --vllm-version V            reported version (default: 0.32.0)\n"
         "  --on-disconnect WHAT        exit (default); reconnect: wait for the next front-end, and\n"
         "                              end with the parent process\n"
         "  --fault SPEC                inject a fault; may be repeated; see README.md\n";
}

Options parse_options(const std::vector<std::string_view>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    const std::string_view option = arguments[i];
    if (i + 1 == arguments.size()) {
      throw std::invalid_argument("option " + std::string(option) + " is unknown or has no value");
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
      const double rate = parse_amount(option, value);
      options.model.per_prefill_token_us = rate > 0 ? 1e6 / rate : 0;
    } else if (option == "--step-base-us") {
      options.model.base_us = parse_amount(option, value);
    } else if (option == "--step-per-sequence-us") {
      options.model.per_sequence_us = parse_amount(option, value);
    } else if (option == "--step-per-context-token-us") {
      options.model.per_context_token_us = parse_amount(option, value);
    } else if (option == "--step-noise") {
      options.model.noise = parse_amount(option, value);
    } else if (option == "--hiccup-probability") {
      options.model.hiccup_probability = parse_probability(option, value);
    } else if (option == "--hiccup-us") {
      options.model.hiccup_us = parse_amount(option, value);
    } else if (option == "--pad-decodes-to") {
      options.model.pad_to = parse_integer(option, value, 1u);
    } else if (option == "--seed") {
      options.model.seed = parse_integer(option, value, std::uint64_t{0});
    } else if (option == "--vllm-version") {
      options.vllm_version = value;
    } else if (option == "--on-disconnect") {
      if (value != "exit" && value != "reconnect") reject(option, value, "exit or reconnect");
      options.reconnects = value == "reconnect";
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
