#pragma once

#include <string>

#include "scheduler.h"

namespace replay {

// Writes the engine's configuration as the launcher of a vLLM engine does: JSON, by vLLM's names
// (sut/serving/vllm_report.py). Throws std::runtime_error.
void write_report(const Limits& limits, const std::string& version, const std::string& path);

}  // namespace replay
