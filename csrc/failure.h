#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

namespace sut {

// Why a dispatcher stopped. `code` is for programs, e.g. "connection_lost".
struct Failure {
  std::string code;
  std::string message;
  int replica = -1;  // -1: not caused by a single replica
};

// A replica that was lost, where the dispatcher continued with the others. Times count from the last
// reset_stats(); they may be negative.
struct ReplicaLoss {
  Failure why;
  std::int64_t lost_ns = 0;
  std::optional<std::int64_t> rejoined_ns = std::nullopt;
  std::int64_t samples_restarted = 0;  // that it had not completed; other replicas ran them
  std::int64_t tokens_lost = 0;        // that it had generated for them
};

class Stopped : public std::runtime_error {
 public:
  explicit Stopped(const Failure& failure)
      : std::runtime_error(failure.code + ": " + failure.message) {}
};

}  // namespace sut
