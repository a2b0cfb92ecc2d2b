#include "simulation.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <memory>
#include <queue>
#include <stdexcept>
#include <string>
#include <utility>

#include "../replica_choice.h"

namespace sut {
namespace {

using replay::FinishReason;
using replay::Output;
using replay::Scheduler;
using replay::Step;

constexpr std::int64_t kNone = -1;

struct Replica {
  Replica(const replay::Limits& limits, const replay::ServiceModel& model)
      : scheduler(limits, model) {}

  Scheduler scheduler;
  Step step;  // in progress if `busy`
  bool busy = false;
  std::size_t num_in_flight = 0;
};

replay::ServiceModel service_of(const SimulatedSystem& system, std::size_t replica) {
  const double factor = system.step_factors.empty() ? 1 : system.step_factors[replica];
  replay::ServiceModel model = system.service;
  for (double* time_us : {&model.base_us, &model.per_sequence_us, &model.per_prefill_token_us,
                          &model.per_context_token_us, &model.hiccup_us})
    *time_us *= factor;
  model.seed += replica;
  return model;
}

struct Progress {
  std::int64_t admitted_ns = 0;
  std::int64_t first_token_ns = kNone;
  std::uint32_t replica = 0;
  bool over = false;
};

class Simulation {
 public:
  Simulation(const Schedule& schedule, const SimulatedSystem& system, const SimulatedTest& test)
      : schedule_(schedule),
        system_(system),
        test_(test),
        progress_(schedule.size()),
        choice_(static_cast<std::size_t>(system.num_replicas)) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(system.num_replicas); ++i) {
      replicas_.push_back(std::make_unique<Replica>(system.limits, service_of(system, i)));
      set_in_flight(i, 0);
    }
  }

  Simulated run() {
    while (const std::optional<std::int64_t> next = next_event()) {
      if (test_.stop_after_ns && *next > *test_.stop_after_ns) {
        now_ = *test_.stop_after_ns;
        result_.stopped = true;
      } else {
        now_ = *next;
      }
      count_late();
      if (result_.stopped || is_hopeless()) break;
      advance();
    }
    result_.end_ns = now_;
    return std::move(result_);
  }

 private:
  using StepEnd = std::pair<std::int64_t, std::size_t>;  // and its replica

  std::optional<std::int64_t> next_event() const {
    std::optional<std::int64_t> next;
    if (num_arrived_ < schedule_.size()) next = schedule_.arrival_ns[num_arrived_];
    if (!step_ends_.empty() && (!next || step_ends_.top().first < *next))
      next = step_ends_.top().first;
    return next;
  }

  // A step that ends now is over before the next one begins with what has arrived.
  void advance() {
    while (num_arrived_ < schedule_.size() && schedule_.arrival_ns[num_arrived_] <= now_)
      ++num_arrived_;
    idle_.clear();
    while (!step_ends_.empty() && step_ends_.top().first <= now_) {
      const std::size_t index = step_ends_.top().second;
      step_ends_.pop();
      end_step(index);
      idle_.push_back(index);
    }
    admit();
    for (const std::size_t index : idle_) start_step(index);
  }

  void admit() {
    while (num_admitted_ < num_arrived_) {
      const std::optional<std::size_t> index = choice_.next();
      if (!index) return;
      Replica& replica = *replicas_[*index];
      if (!replica.busy && !replica.scheduler.has_work()) idle_.push_back(*index);
      Progress& progress = progress_[num_admitted_];
      progress.admitted_ns = now_;
      progress.replica = static_cast<std::uint32_t>(*index);
      set_in_flight(*index, replica.num_in_flight + 1);
      replica.scheduler.add(request_of(num_admitted_++));
    }
  }

  void set_in_flight(std::size_t index, std::size_t num_in_flight) {
    replicas_[index]->num_in_flight = num_in_flight;
    choice_.set(index, num_in_flight, system_.credit);
  }

  replay::Request request_of(std::size_t query) const {
    const auto sample = static_cast<std::size_t>(schedule_.sample_index[query]);
    const std::uint32_t num_tokens = test_.output_tokens[sample];
    return {.id = std::to_string(query),
            .prompt = std::vector<std::uint32_t>(test_.prompt_tokens[sample]),
            .min_tokens = num_tokens,
            .max_tokens = num_tokens};
  }

  void start_step(std::size_t index) {
    Replica& replica = *replicas_[index];
    if (replica.busy || !replica.scheduler.has_work()) return;
    replica.step = replica.scheduler.begin_step();
    replica.busy = true;
    step_ends_.emplace(now_ + replica.step.duration_ns, index);
  }

  void end_step(std::size_t index) {
    Replica& replica = *replicas_[index];
    replica.busy = false;
    if (test_.log_steps) log(replica.step, index);
    for (const Output& output : replica.scheduler.end_step()) {
      const std::size_t query = std::stoull(std::string(output.request_id));
      Progress& progress = progress_[query];
      if (output.is_first) progress.first_token_ns = now_;
      if (output.finish_reason == FinishReason::kNone) continue;
      set_in_flight(index, replica.num_in_flight - 1);
      complete(query);
    }
  }

  void complete(std::size_t query) {
    const auto sample = static_cast<std::size_t>(schedule_.sample_index[query]);
    Progress& progress = progress_[query];
    const CompletedSample completed{
        .sample_index = static_cast<std::uint32_t>(sample),
        .replica = progress.replica,
        .prompt_tokens = test_.prompt_tokens[sample],
        .output_tokens = test_.output_tokens[sample],
        .issued_ns = schedule_.arrival_ns[query],
        .admitted_ns = progress.admitted_ns,
        .first_token_ns = progress.first_token_ns,
        .completed_ns = now_};
    if (test_.tpot_limit_ns && completed.tpot_ns() > *test_.tpot_limit_ns) {
      ++result_.num_tpot_over;
      count_over(progress);
    }
    append(completed);
  }

  // Counts every sample over the limit on TTFT, as soon as it is over it.
  void count_late() {
    if (!test_.ttft_limit_ns) return;
    for (; num_past_limit_ < schedule_.size() &&
           schedule_.arrival_ns[num_past_limit_] + *test_.ttft_limit_ns < now_;
         ++num_past_limit_) {
      if (progress_[num_past_limit_].first_token_ns != kNone) continue;
      ++result_.num_ttft_over;
      count_over(progress_[num_past_limit_]);
    }
  }

  void count_over(Progress& progress) {
    result_.num_over += !progress.over;
    progress.over = true;
  }

  bool is_hopeless() {
    if (!test_.stop_over) return false;
    result_.stopped = std::max(result_.num_ttft_over, result_.num_tpot_over) > *test_.stop_over;
    return result_.stopped;
  }

  void append(const CompletedSample& sample) {
    SampleColumns& columns = result_.samples;
    columns.sample_index.push_back(sample.sample_index);
    columns.replica.push_back(sample.replica);
    columns.prompt_tokens.push_back(sample.prompt_tokens);
    columns.output_tokens.push_back(sample.output_tokens);
    columns.issued_ns.push_back(sample.issued_ns);
    columns.admitted_ns.push_back(sample.admitted_ns);
    columns.first_token_ns.push_back(sample.first_token_ns);
    columns.completed_ns.push_back(sample.completed_ns);
  }

  void log(const Step& step, std::size_t index) {
    StepColumns& columns = result_.steps;
    columns.replica.push_back(static_cast<std::int64_t>(index));
    columns.end_ns.push_back(now_);
    columns.duration_ns.push_back(step.duration_ns);
    columns.num_decoding.push_back(step.num_decoding);
    columns.num_prefill_tokens.push_back(step.num_prefill_tokens);
    columns.context_tokens.push_back(static_cast<std::int64_t>(step.num_context_tokens));
  }

  const Schedule& schedule_;
  const SimulatedSystem& system_;
  const SimulatedTest& test_;
  std::vector<std::unique_ptr<Replica>> replicas_;
  std::vector<Progress> progress_;  // by query
  ReplicaChoice choice_;
  std::priority_queue<StepEnd, std::vector<StepEnd>, std::greater<>> step_ends_;
  std::vector<std::size_t> idle_;  // replicas that may begin a step now
  std::int64_t now_ = 0;
  std::size_t num_arrived_ = 0;
  std::size_t num_admitted_ = 0;
  std::size_t num_past_limit_ = 0;
  Simulated result_;
};

void check(const Schedule& schedule, const SimulatedSystem& system, const SimulatedTest& test) {
  const auto require = [](bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
  };
  require(system.num_replicas >= 1, "num_replicas must be at least 1");
  require(system.credit >= 1, "credit must be at least 1");
  require(system.step_factors.empty() ||
              system.step_factors.size() == static_cast<std::size_t>(system.num_replicas),
          "step_factors must have one factor for each replica");
  for (const double factor : system.step_factors)
    require(factor > 0 && std::isfinite(factor), "step_factors must be finite and above 0");
  system.service.check();
  const replay::Limits& limits = system.limits;
  require(limits.max_num_seqs >= 1, "max_num_seqs must be at least 1");
  require(limits.max_num_batched_tokens >= limits.max_num_seqs,
          "max_num_batched_tokens must be at least max_num_seqs");
  require(schedule.arrival_ns.size() == schedule.sample_index.size(),
          "the columns of a schedule must have the same length");
  require(std::is_sorted(schedule.arrival_ns.begin(), schedule.arrival_ns.end()),
          "the arrivals of a schedule must ascend");
  require(test.prompt_tokens.size() == test.output_tokens.size(),
          "prompt_tokens and output_tokens must have the same length");
  const auto num_samples = static_cast<std::int64_t>(test.prompt_tokens.size());
  for (const std::int64_t sample : schedule.sample_index)
    require(0 <= sample && sample < num_samples,
            "the schedule has a sample without a number of tokens");
  for (std::size_t i = 0; i < test.prompt_tokens.size(); ++i) {
    require(test.prompt_tokens[i] >= 1 && test.output_tokens[i] >= 1,
            "a prompt and an answer must have at least 1 token");
    require(std::uint64_t{test.prompt_tokens[i]} + test.output_tokens[i] <= limits.max_model_len,
            "a prompt and its answer must fit in max_model_len");
  }
}

}  // namespace

Simulated simulate(const Schedule& schedule, const SimulatedSystem& system,
                   const SimulatedTest& test) {
  check(schedule, system, test);
  return Simulation(schedule, system, test).run();
}

}  // namespace sut
