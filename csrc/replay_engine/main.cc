#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "engine.h"
#include "options.h"
#include "report.h"

namespace {

// Has the kernel send SIGTERM when the parent dies. False if it is dead already; before this call
// only SUT_ENGINE_PARENT can tell.
bool end_with_parent() {
  const char* const given = std::getenv("SUT_ENGINE_PARENT");
  const pid_t parent = given ? static_cast<pid_t>(std::atoi(given)) : getppid();
  return prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) == 0 && getppid() == parent;
}

// Without a key file it speaks to front-ends that do not authenticate, for comparison.
replay::Connection::Keys keys_of_environment() {
  const char* const path = std::getenv(sut::curve::kKeyFileVariable);
  if (path == nullptr) return std::nullopt;
  return sut::curve::read_engine_keys(path);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string_view> arguments(argv + 1, argv + argc);
  if (arguments == std::vector<std::string_view>{"--help"}) {
    std::fputs(replay::usage().data(), stdout);
    return 0;
  }
  replay::Options options;
  try {
    options = replay::parse_options(arguments);
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "replay_engine: error: %s\n%s", error.what(), replay::usage().data());
    return 2;
  }
  if (options.reconnects && !end_with_parent()) return 1;
  try {
    if (const char* const path = std::getenv("SUT_ENGINE_REPORT"))
      replay::write_report(options.limits, options.vllm_version, path);
    return replay::Engine(options, keys_of_environment()).run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "replay_engine: error: %s\n", error.what());
    return 1;
  }
}
