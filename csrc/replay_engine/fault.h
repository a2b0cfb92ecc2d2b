#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace replay {

// See README.md.
enum class FaultKind {
  kDie,
  kDead,
  kStall,
  kError,
  kGarbage,
  kSlow,
  kTruncate,
  kUnknownId,
  kOversize,
  kDuplicate,
  kReorder,
  kResetInput,
  kResetOutput,
  kDieLoading,
  kNeverReady,
  kCached,
  kDraft,
  kAbort,
  kEmpty,
  kEndless,
  kForget,
  kForeignToken,
  kClockAhead,
};

struct Fault {
  FaultKind kind{};
  std::uint64_t at = 0;  // completed requests, or a request's number, from 1
  double factor = 1;     // only for kSlow
  bool taken = false;
};

// Reads `die@N`, `slow@N:FACTOR`, `never-ready` and so on. Throws std::invalid_argument.
Fault parse_fault(std::string_view spec);

// The faults of one engine.
class FaultPlan {
 public:
  explicit FaultPlan(std::vector<Fault> faults) : faults_(std::move(faults)) {}

  // True once per fault of this kind: at the first call with `count` at or past its number.
  bool take(FaultKind kind, std::uint64_t count = 0);

  // The factor of a step's duration after `num_completed` requests.
  double step_factor(std::uint64_t num_completed) const;

 private:
  std::vector<Fault> faults_;
};

}  // namespace replay
