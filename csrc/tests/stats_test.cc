// Quantiles are exact, and a log is readable while it is appended to.
#include "../stats.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <random>
#include <thread>

#include "check.h"

namespace {

void quantiles_are_those_of_the_sorted_values() {
  CHECK(sut::quantiles_of({}).empty());
  std::vector<std::int64_t> values(1000);
  std::iota(values.begin(), values.end(), 0);
  std::shuffle(values.begin(), values.end(), std::mt19937(1));
  const auto quantiles = sut::quantiles_of(values);
  const std::vector<std::pair<std::string, std::int64_t>> expected = {
      {"p50", 500}, {"p90", 900}, {"p99", 990}, {"p99.9", 999}, {"max", 999}};
  CHECK(quantiles == expected);
  for (const auto& [name, value] : sut::quantiles_of({7})) CHECK(value == 7);
}

void a_histograms_quantiles_are_within_their_bucket() {
  sut::LatencyHistogram histogram;
  CHECK(histogram.quantiles().empty());
  std::mt19937_64 random(1);
  for (const std::size_t count : {1, 2, 10, 1'000, 100'000}) {
    std::vector<std::int64_t> latencies;
    for (std::size_t i = 0; i < count; ++i)  // from a nanosecond to hours
      latencies.push_back(static_cast<std::int64_t>(random() >> (20 + random() % 44)));
    histogram.clear();
    for (const std::int64_t latency : latencies) histogram.add(latency);
    const auto exact = sut::quantiles_of(latencies), found = histogram.quantiles();
    CHECK(found.size() == exact.size() && found.back() == exact.back());
    for (std::size_t i = 0; i < exact.size(); ++i) {
      CHECK(found[i].first == exact[i].first);
      CHECK(128 * std::abs(found[i].second - exact[i].second) <= exact[i].second);
    }
  }
  histogram.add(std::numeric_limits<std::int64_t>::max());
  histogram.add(-5);  // a clock that went back
  CHECK(histogram.quantiles().back().second == std::numeric_limits<std::int64_t>::max());
}

void a_concurrent_reader_sees_a_complete_prefix() {
  struct Value {
    std::int64_t number;
    std::int64_t negative;
  };
  sut::AppendLog<Value> log;
  constexpr std::int64_t kCount = 1'000'000;  // many chunks
  std::thread writer([&] {
    for (std::int64_t i = 0; i < kCount; ++i) log.append({i, -i});
  });
  std::size_t size = 0;
  while (size < kCount) {
    CHECK(log.size() >= size);
    size = log.size();
    std::int64_t next = 0;
    log.for_each(size, [&](const Value& value) {
      CHECK(value.number == next && value.negative == -next);
      ++next;
    });
    CHECK(next == static_cast<std::int64_t>(size));
  }
  writer.join();
  log.clear();
  CHECK(log.size() == 0);
}

void busy_time_is_time_with_samples_in_flight() {
  sut::ReplicaStats stats;
  stats.admit(100, 10);
  stats.admit(150, 20);
  stats.complete(200);
  CHECK(stats.snapshot(0, 250).busy_ns == 150);
  stats.complete(300);
  const auto s = stats.snapshot(0, 1000);
  CHECK(s.busy_ns == 200 && s.admitted == 2 && s.completed == 2 && s.prompt_tokens == 30);
}

}  // namespace

int main() {
  quantiles_are_those_of_the_sorted_values();
  a_histograms_quantiles_are_within_their_bucket();
  a_concurrent_reader_sees_a_complete_prefix();
  busy_time_is_time_with_samples_in_flight();
}
