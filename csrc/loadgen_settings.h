#pragma once

#include <string>

#include <test_settings.h>

namespace sut {

// LoadGen's settings of a performance test: its built-in mlperf.conf, then `user_conf`, the text of
// a user.conf. `scenario` is Server, Offline or SingleStream. Throws std::invalid_argument if
// LoadGen rejects them.
mlperf::TestSettings loadgen_settings(const std::string& model, const std::string& scenario,
                                      const std::string& user_conf);

}  // namespace sut
