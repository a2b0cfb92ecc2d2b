// A test in virtual time: samples over a limit, and the end of a test that cannot meet them.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "check.h"
#include "simulated_load.h"

namespace {

std::int64_t num_ttft_over(const sut::SampleColumns& samples, std::int64_t limit_ns) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < samples.issued_ns.size(); ++i)
    count += samples.first_token_ns[i] - samples.issued_ns[i] > limit_ns;
  return count;
}

std::int64_t num_tpot_over(const sut::SampleColumns& samples, std::int64_t limit_ns) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < samples.issued_ns.size(); ++i) {
    const std::int64_t num_gaps = samples.output_tokens[i] - 1;
    const std::int64_t decode_ns = samples.completed_ns[i] - samples.first_token_ns[i];
    count += num_gaps > 0 && decode_ns / num_gaps > limit_ns;
  }
  return count;
}

void samples_over_a_limit_are_counted() {
  const Load load = heavy_load();
  const SimulatedSystem system = system_of(2);
  SimulatedTest test = test_of(load.prompts, load.answers);
  auto free = simulate(load.schedule, system, test);
  CHECK(free.num_ttft_over == 0 && free.num_tpot_over == 0 && free.num_over == 0);
  std::vector<std::int64_t> ttft;
  for (std::size_t i = 0; i < 400; ++i)
    ttft.push_back(free.samples.first_token_ns[i] - free.samples.issued_ns[i]);
  std::sort(ttft.begin(), ttft.end());
  for (const std::size_t rank : {0, 200, 350, 399}) {
    test.ttft_limit_ns = ttft[rank];
    const auto limited = simulate(load.schedule, system, test);
    CHECK(limited.num_ttft_over == num_ttft_over(free.samples, ttft[rank]));
    CHECK(limited.num_over == limited.num_ttft_over && !limited.stopped);
  }
  test.ttft_limit_ns.reset();
  test.tpot_limit_ns = 120'000;
  const std::int64_t num_over = num_tpot_over(free.samples, 120'000);
  CHECK(num_over > 10 && num_over < 390);
  CHECK(simulate(load.schedule, system, test).num_tpot_over == num_over);
  test.ttft_limit_ns = ttft[200];
  const auto both = simulate(load.schedule, system, test);
  CHECK(both.num_over >= std::max(both.num_ttft_over, both.num_tpot_over));
  CHECK(both.num_over < both.num_ttft_over + both.num_tpot_over);
}

void a_sample_exactly_at_a_limit_is_not_over() {
  const Tokens prompts{5};
  const Tokens answers{3};
  SimulatedTest test = test_of(prompts, answers);  // TTFT 105 us, then two steps of 110 us
  test.ttft_limit_ns = 105'000;
  test.tpot_limit_ns = 110'000;
  CHECK(simulate(arriving({0}, 1), system_of(1), test).num_over == 0);
  test.ttft_limit_ns = 104'999;
  CHECK(simulate(arriving({0}, 1), system_of(1), test).num_ttft_over == 1);
  test.tpot_limit_ns = 109'999;
  CHECK(simulate(arriving({0}, 1), system_of(1), test).num_tpot_over == 1);
}

// A queue that grows is known to be late before its samples are served.
void a_hopeless_test_stops_at_its_budget() {
  const Load load = heavy_load();
  SimulatedTest test = test_of(load.prompts, load.answers);
  test.ttft_limit_ns = 1'000'000;
  const auto whole = simulate(load.schedule, system_of(1), test);
  CHECK(whole.num_ttft_over > 300 && !whole.stopped);
  test.stop_over = whole.num_ttft_over;
  CHECK(!simulate(load.schedule, system_of(1), test).stopped);
  test.stop_over = 20;
  const auto stopped = simulate(load.schedule, system_of(1), test);
  CHECK(stopped.stopped && stopped.num_ttft_over > 20 && stopped.num_ttft_over < 30);
  CHECK(stopped.end_ns < whole.end_ns / 4);
  CHECK(num_ttft_over(stopped.samples, 1'000'000) < stopped.num_ttft_over);
}

void a_test_stops_at_its_time() {
  const Load load = heavy_load();
  SimulatedTest test = test_of(load.prompts, load.answers);
  const auto whole = simulate(load.schedule, system_of(1), test);
  test.stop_after_ns = whole.end_ns / 3;
  const auto stopped = simulate(load.schedule, system_of(1), test);
  CHECK(stopped.stopped && stopped.end_ns == *test.stop_after_ns);
  const std::size_t count = stopped.samples.completed_ns.size();
  CHECK(count > 0 && stopped.samples.completed_ns.back() <= stopped.end_ns);
  CHECK(whole.samples.completed_ns[count] > stopped.end_ns);
  CHECK(std::equal(stopped.samples.completed_ns.begin(), stopped.samples.completed_ns.end(),
                   whole.samples.completed_ns.begin()));
  test.stop_after_ns = whole.end_ns;
  CHECK(!simulate(load.schedule, system_of(1), test).stopped);
}

}  // namespace

int main() {
  samples_over_a_limit_are_counted();
  a_sample_exactly_at_a_limit_is_not_over();
  a_hopeless_test_stops_at_its_budget();
  a_test_stops_at_its_time();
}
