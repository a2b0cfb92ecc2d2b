#pragma once

#include <cstdint>
#include <vector>

#include "dispatcher.h"

namespace sut {

// Runs `samples` outside LoadGen, on one replica or any, and returns their output token ids in
// the order of `samples`. Blocks for up to `timeout_s`; then the dispatcher fails with
// "generate_timeout". Throws Stopped with the dispatcher's reason if it stopped.
std::vector<std::vector<std::int32_t>> generate(Dispatcher& dispatcher,
                                                const std::vector<std::size_t>& samples,
                                                int replica, double timeout_s);

}  // namespace sut
