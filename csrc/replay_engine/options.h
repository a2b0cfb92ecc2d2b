#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fault.h"
#include "scheduler.h"
#include "service_model.h"

namespace replay {

struct Options {
  std::string handshake_address;
  Limits limits;
  ServiceModel model;
  std::string vllm_version = "0.32.0";
  std::vector<Fault> faults;
  bool reconnects = false;  // outlives a front-end, and ends with its parent process
};

// The program's usage, one line per option.
std::string_view usage();

// Reads the arguments after the program's name. Throws std::invalid_argument.
Options parse_options(const std::vector<std::string_view>& arguments);

}  // namespace replay
