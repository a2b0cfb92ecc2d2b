// Quantiles are exact, and latencies can be copied while they are appended.
#include "../stats.h"

#include <algorithm>
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

void a_copy_taken_while_appending_is_a_whole_prefix() {
  sut::AppendLog log;
  constexpr std::int64_t kCount = 400'000;  // several chunks
  std::thread writer([&] {
    for (std::int64_t i = 0; i < kCount; ++i) log.append(i);
  });
  std::size_t size = 0;
  while (size < kCount) {
    const auto copy = log.copy();
    CHECK(copy.size() >= size);
    size = copy.size();
    for (std::size_t i = 0; i < size; i += 997) CHECK(copy[i] == static_cast<std::int64_t>(i));
  }
  writer.join();
  log.clear();
  CHECK(log.copy().empty());
}

void busy_time_is_the_time_with_work() {
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
  a_copy_taken_while_appending_is_a_whole_prefix();
  busy_time_is_the_time_with_work();
}
