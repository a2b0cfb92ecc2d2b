#include "schedule.h"

#include <test_settings_internal.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <stdexcept>

#include "../loadgen_settings.h"

namespace sut {
namespace {

using mlperf::TestScenario;
using mlperf::loadgen::TestSettingsInternal;
using Indices = std::vector<std::size_t>;

constexpr double kMaxQueries = 1e8;  // 1.6 GB

Indices ascending(std::size_t size) {
  Indices indices(size);
  std::iota(indices.begin(), indices.end(), std::size_t{0});
  return indices;
}

// The samples that LoadGen loads, in its order.
Indices loaded_samples(const TestSettingsInternal& settings, std::size_t num_samples) {
  Indices samples =
      ascending(std::min<std::size_t>(settings.performance_sample_count, num_samples));
  std::mt19937 rng(settings.qsl_rng_seed);
  std::shuffle(samples.begin(), samples.end(), rng);
  return samples;
}

// Chooses the samples of a Server test one by one.
//
// LoadGen draws every kind of choice from one generator before it uses one of them: the order of
// the draws here is part of the result.
class SampleChooser {
 public:
  SampleChooser(const TestSettingsInternal& settings, const Indices& loaded,
                std::size_t min_queries)
      : settings_(settings),
        loaded_(loaded),
        rng_(settings.sample_index_rng_seed),
        unique_(ascending(loaded.size())),
        uniform_(0, static_cast<int>(loaded.size()) - 1) {
    std::shuffle(unique_.begin(), unique_.end(), rng_);
    Indices pass = ascending(loaded.size());
    for (std::size_t n = 0; n < min_queries; n += loaded.size()) {
      std::shuffle(pass.begin(), pass.end(), rng_);
      passes_.insert(passes_.end(), pass.begin(), pass.end());
    }
  }

  std::size_t next() { return loaded_[index()]; }
  std::mt19937& rng() { return rng_; }

 private:
  std::size_t index() {
    if (settings_.performance_issue_unique) return unique_.at(num_chosen_++);
    if (settings_.performance_issue_same) return settings_.performance_issue_same_index;
    if (settings_.sample_concatenate_permutation) return passes_[num_chosen_++ % passes_.size()];
    return static_cast<std::size_t>(uniform_(rng_));
  }

  const TestSettingsInternal& settings_;
  const Indices& loaded_;
  std::mt19937 rng_;
  Indices unique_;
  Indices passes_;  // whole permutations, one after the other
  std::uniform_int_distribution<int> uniform_;
  std::size_t num_chosen_ = 0;
};

std::size_t rounded_up(std::size_t count, std::size_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

std::chrono::nanoseconds to_ns(double seconds) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<double>(seconds));
}

void append(Schedule& schedule, std::chrono::nanoseconds arrival, std::size_t sample) {
  schedule.arrival_ns.push_back(arrival.count());
  schedule.sample_index.push_back(static_cast<std::int64_t>(sample));
}

bool is_last(const Schedule& schedule, const TestSettingsInternal& settings) {
  if (settings.max_query_count != 0 && schedule.size() >= settings.max_query_count) return true;
  const std::chrono::nanoseconds longest = settings.max_duration;
  return longest.count() != 0 && schedule.arrival_ns.back() > longest.count();
}

Schedule server(const TestSettingsInternal& settings, const Indices& loaded) {
  const bool whole_passes = settings.sample_concatenate_permutation;
  std::chrono::nanoseconds duration = settings.target_duration;
  std::size_t min_queries = settings.min_query_count;
  if (settings.performance_issue_unique) {
    duration = std::chrono::nanoseconds(0);
    min_queries = loaded.size();
  }
  SampleChooser chooser(settings, loaded, min_queries);
  if (whole_passes) min_queries = rounded_up(min_queries, loaded.size());

  std::mt19937 rng(settings.schedule_rng_seed);
  std::exponential_distribution<> gap_s(settings.target_qps);
  Schedule schedule;
  std::chrono::nanoseconds arrival(0);
  std::chrono::nanoseconds last(0);
  while (last < duration || schedule.size() < min_queries) {
    append(schedule, arrival, chooser.next());
    if (is_last(schedule, settings)) break;
    last = arrival;
    arrival += to_ns(gap_s(rng));
    if (whole_passes && schedule.size() >= min_queries && last < duration)
      min_queries += loaded.size();
  }
  return schedule;
}

// One query at time 0 with every sample.
Schedule offline(const TestSettingsInternal& settings, const Indices& loaded) {
  const bool whole_passes = settings.sample_concatenate_permutation;
  std::size_t count = settings.samples_per_query;
  const std::size_t min_queries = settings.performance_issue_unique
                                      ? loaded.size() / std::max<std::size_t>(count, 1)
                                      : settings.min_query_count;
  if (min_queries == 0 || count == 0)
    throw std::invalid_argument("LoadGen generates no query from these settings");
  SampleChooser chooser(settings, loaded, min_queries);
  if (whole_passes) count = rounded_up(count, loaded.size());

  Schedule schedule;
  Indices pass;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t place = i % loaded.size();
    if (place == 0) pass = loaded;
    if (place == 0 && whole_passes && !settings.performance_issue_same)
      std::shuffle(pass.begin(), pass.end(), chooser.rng());
    append(schedule, std::chrono::nanoseconds(0),
           settings.performance_issue_same ? loaded[settings.performance_issue_same_index]
                                           : pass[place]);
  }
  return schedule;
}

void check(const mlperf::TestSettings& settings, std::size_t num_samples) {
  const bool is_server = settings.scenario == TestScenario::Server;
  if (!is_server && settings.scenario != TestScenario::Offline)
    throw std::invalid_argument(
        "only Server and Offline have a schedule; in SingleStream a query waits for the last one");
  if (num_samples == 0) throw std::invalid_argument("num_samples must be at least 1");
  if (settings.performance_issue_unique && settings.performance_issue_same)
    throw std::invalid_argument(
        "performance_issue_unique and performance_issue_same cannot be combined");
  const double qps = is_server ? settings.server_target_qps : settings.offline_expected_qps;
  if (is_server && !(qps > 0)) throw std::invalid_argument("target_qps must be above 0");
  const double by_duration = 1.1 * qps * static_cast<double>(settings.min_duration_ms) / 1e3;
  const double num_queries =
      std::max(by_duration, static_cast<double>(settings.min_query_count));
  if (!(num_queries <= kMaxQueries))
    throw std::invalid_argument("the schedule has more than 100 million queries");
}

}  // namespace

Schedule make_schedule(const std::string& model, const std::string& scenario,
                       const std::string& user_conf, std::size_t num_samples) {
  const mlperf::TestSettings requested = loadgen_settings(model, scenario, user_conf);
  check(requested, num_samples);
  const TestSettingsInternal settings(requested, num_samples, num_samples);
  const Indices loaded = loaded_samples(settings, num_samples);
  if (settings.performance_issue_same && settings.performance_issue_same_index >= loaded.size())
    throw std::invalid_argument("performance_issue_same_index must be below the number of samples");
  return settings.scenario == TestScenario::Server ? server(settings, loaded)
                                                   : offline(settings, loaded);
}

}  // namespace sut
