#include "fault.h"

#include <charconv>
#include <cmath>
#include <iterator>
#include <stdexcept>
#include <string>

namespace replay {
namespace {

struct Form {
  std::string_view name;
  FaultKind kind;
  bool has_number;
  bool has_factor;
};

constexpr Form kForms[] = {
    {"die", FaultKind::kDie, true, false},
    {"dead", FaultKind::kDead, true, false},
    {"stall", FaultKind::kStall, true, false},
    {"error", FaultKind::kError, true, false},
    {"garbage", FaultKind::kGarbage, true, false},
    {"slow", FaultKind::kSlow, true, true},
    {"truncate", FaultKind::kTruncate, true, false},
    {"unknown-id", FaultKind::kUnknownId, true, false},
    {"oversize", FaultKind::kOversize, true, false},
    {"duplicate", FaultKind::kDuplicate, true, false},
    {"reorder", FaultKind::kReorder, true, false},
    {"reset-input", FaultKind::kResetInput, true, false},
    {"reset-output", FaultKind::kResetOutput, true, false},
    {"die-loading", FaultKind::kDieLoading, false, false},
    {"never-ready", FaultKind::kNeverReady, false, false},
    {"cached", FaultKind::kCached, true, false},
    {"draft", FaultKind::kDraft, true, false},
    {"abort", FaultKind::kAbort, true, false},
    {"empty", FaultKind::kEmpty, true, false},
    {"endless", FaultKind::kEndless, true, false},
    {"forget", FaultKind::kForget, true, false},
    {"foreign-token", FaultKind::kForeignToken, true, false},
    {"clock-ahead", FaultKind::kClockAhead, false, false},
};

template <typename Number>
bool parse_whole(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.begin(), text.end(), number);
  return error == std::errc{} && end == text.end();
}

// Whether a fault's number is that of a request.
bool is_of_request(FaultKind kind) {
  switch (kind) {
    case FaultKind::kError:
    case FaultKind::kCached:
    case FaultKind::kAbort:
    case FaultKind::kEmpty:
    case FaultKind::kEndless:
    case FaultKind::kForget:
    case FaultKind::kForeignToken:
      return true;
    default:
      return false;
  }
}

std::invalid_argument bad_fault(std::string_view spec) {
  std::string message = "unknown fault '" + std::string(spec) + "': expected one of";
  for (const Form& form : kForms) {
    message.append(" ").append(form.name);
    message += form.has_number ? (form.has_factor ? "@N:FACTOR" : "@N") : "";
  }
  return std::invalid_argument(message);
}

}  // namespace

Fault parse_fault(std::string_view spec) {
  const std::size_t at = spec.find('@');
  const bool has_number = at != spec.npos;
  std::string_view number = has_number ? spec.substr(at + 1) : std::string_view{};
  for (const Form& form : kForms) {
    if (form.name != spec.substr(0, at) || form.has_number != has_number) continue;
    Fault fault{.kind = form.kind};
    if (form.has_factor) {
      const std::size_t colon = number.find(':');
      if (colon == number.npos || !parse_whole(number.substr(colon + 1), fault.factor) ||
          !std::isfinite(fault.factor) || fault.factor < 0) {
        break;
      }
      number = number.substr(0, colon);
    }
    if (form.has_number && !parse_whole(number, fault.at)) break;
    if (is_of_request(form.kind) && fault.at == 0) break;
    return fault;
  }
  throw bad_fault(spec);
}

bool FaultPlan::take(FaultKind kind, std::uint64_t count) {
  for (Fault& fault : faults_) {
    if (fault.kind == kind && !fault.taken && count >= fault.at) return fault.taken = true;
  }
  return false;
}

double FaultPlan::step_factor(std::uint64_t num_completed) const {
  double factor = 1;
  for (const Fault& fault : faults_) {
    if (fault.kind == FaultKind::kSlow && num_completed >= fault.at) factor *= fault.factor;
  }
  return factor;
}

}  // namespace replay
