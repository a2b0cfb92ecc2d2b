#pragma once

#include <chrono>
#include <cstdint>

namespace sut {

// Nanoseconds of the monotonic clock, the one that Python's time.monotonic() and timerfd read.
inline std::int64_t now_ns() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

}  // namespace sut
