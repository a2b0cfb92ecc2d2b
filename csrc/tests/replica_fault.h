#pragma once

#include <array>

// What happens to a replica: done to its process, or by the engine itself (replay_engine --fault).
enum class Fault { kNone, kKill, kStop, kPause, kReport, kDie, kDead, kStall, kInput, kOutput };
inline constexpr std::array kFaults = {Fault::kNone, Fault::kKill,  Fault::kStop,
                                Fault::kPause, Fault::kReport, Fault::kDie,
                                Fault::kDead, Fault::kStall, Fault::kInput, Fault::kOutput};

inline const char* engine_fault(Fault fault) {
  switch (fault) {
    case Fault::kDie:
      return "die";
    case Fault::kDead:
      return "dead";
    case Fault::kStall:
      return "stall";
    case Fault::kInput:
      return "reset-input";
    case Fault::kOutput:
      return "reset-output";
    default:
      return nullptr;
  }
}
