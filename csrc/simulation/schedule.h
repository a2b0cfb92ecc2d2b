#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sut {

// The queries of a performance test in the order in which LoadGen issues them, as columns. Times
// count from the start of the test.
struct Schedule {
  std::vector<std::int64_t> arrival_ns;    // ascending; all 0 in Offline
  std::vector<std::int64_t> sample_index;  // in [0, num_samples)

  std::size_t size() const { return arrival_ns.size(); }
};

// What LoadGen's GenerateQueries (loadgen.cc) makes of these settings: a function of the seeds in
// its mlperf.conf. For choosing a load only: nothing that answers queries may use it.
//
// `scenario` is Server or Offline; `num_samples` is the size of the data set. A limit on queries
// that wait (max_async_queries) is not applied, since it depends on the system. Throws
// std::invalid_argument.
Schedule make_schedule(const std::string& model, const std::string& scenario,
                       const std::string& user_conf, std::size_t num_samples);

}  // namespace sut
