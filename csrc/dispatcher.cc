#include "dispatcher.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

namespace sut {

Dispatcher::Dispatcher(std::shared_ptr<ReplicaLinks> links,
                       std::shared_ptr<const SampleStore> store, WireLayout layout,
                       Options options)
    : links_(std::move(links)),
      store_(std::move(store)),
      layout_(std::move(layout)),
      options_(std::move(options)),
      in_flight_(options_.max_output_tokens, options_.first_use),
      choice_(links_->size()) {
  if (options_.max_output_tokens < 1)
    throw std::invalid_argument("max_output_tokens must be at least 1");
  if (!(options_.sample_deadline_s > 0) || !(options_.stall_deadline_s > 0))
    throw std::invalid_argument("deadlines must be positive");

  links_->take();
  for (std::size_t i = 0; i < links_->size(); ++i) {
    replicas_.push_back(std::make_unique<Replica>(links_, i));
    watch_link(static_cast<int>(i));
  }
  poller_.add(wake_up_.fd(), kWakeUpKey);
  io_thread_ = std::thread([this] { run(); });
}

void Dispatcher::watch_link(int index) {
  const auto descriptors = replicas_[static_cast<std::size_t>(index)]->link->descriptors();
  for (std::size_t item = 0; item < descriptors.size(); ++item)
    poller_.add(descriptors[item], static_cast<std::size_t>(index) * ReplicaLink::kNumItems + item);
}

Dispatcher::~Dispatcher() { close(); }

void Dispatcher::close() {
  std::lock_guard lock(close_mutex_);
  closing_.store(true);
  wake_up_.ring();
  if (io_thread_.joinable()) io_thread_.join();
}

bool Dispatcher::wait_ready(double timeout_s) {
  return wait(
      [this] {
        if (failure_) return false;
        for (const auto& replica : replicas_)
          if (!replica->ready_response) return false;
        return true;
      },
      timeout_s);
}

std::optional<std::string> Dispatcher::ready_response(int replica) const {
  std::lock_guard lock(state_mutex_);
  return replicas_.at(static_cast<std::size_t>(replica))->ready_response;
}

std::int64_t Dispatcher::num_sent(int replica) const {
  return replicas_.at(static_cast<std::size_t>(replica))->num_sent.load();
}

std::int64_t Dispatcher::num_refused(int replica) const {
  return replicas_.at(static_cast<std::size_t>(replica))->num_refused.load();
}

void Dispatcher::set_credit(int replica, std::size_t max_in_flight) {
  replicas_.at(static_cast<std::size_t>(replica))->credit.store(max_in_flight);
  credits_changed_.store(true);
  wake_up_.ring();
}

void Dispatcher::issue(std::span<const Sample> samples, ResponseSink& sink, int replica) {
  if (replica < kAnyReplica || replica >= static_cast<int>(replicas_.size()))
    throw std::out_of_range("no replica " + std::to_string(replica));
  for (const Sample& sample : samples)
    if (sample.index >= store_->size())
      throw std::out_of_range("sample " + std::to_string(sample.index) + " of " +
                              std::to_string(store_->size()));
  const std::int64_t now = now_ns();
  bool was_empty;
  {
    std::lock_guard lock(incoming_mutex_);
    if (failed() || closing_.load()) return;
    was_empty = incoming_.empty();
    for (const Sample& sample : samples) incoming_.push_back({sample, &sink, now, replica, false});
    stats_.issued.fetch_add(static_cast<std::int64_t>(samples.size()), std::memory_order_relaxed);
  }
  // If some were there already, their issuer has rung and the I/O thread has yet to take them.
  if (was_empty) wake_up_.ring();
}

void Dispatcher::fail(Failure failure) {
  {
    std::lock_guard lock(state_mutex_);
    if (failure_) return;
    failure_ = std::move(failure);
    failed_.store(true, std::memory_order_release);
  }
  wake_up_.ring();
}

std::optional<Failure> Dispatcher::failure() const {
  std::lock_guard lock(state_mutex_);
  return failure_;
}

void Dispatcher::lose(Failure why) {
  if (why.replica < 0 || why.replica >= static_cast<int>(replicas_.size()))
    throw std::out_of_range("no replica " + std::to_string(why.replica));
  {
    std::lock_guard lock(state_mutex_);
    reports_.emplace_back(std::move(why));
  }
  wake_up_.ring();
}

std::vector<ReplicaLoss> Dispatcher::losses() const {
  std::lock_guard lock(state_mutex_);
  std::vector<ReplicaLoss> losses = losses_;
  const std::int64_t since_ns = stats_.since_ns.load(std::memory_order_relaxed);
  for (ReplicaLoss& loss : losses) {
    loss.lost_ns -= since_ns;
    if (loss.rejoined_ns) *loss.rejoined_ns -= since_ns;
  }
  return losses;
}

void Dispatcher::rejoin(int replica, Dispatcher& warmed) {
  if (replica < 0 || replica >= static_cast<int>(replicas_.size()))
    throw std::out_of_range("no replica " + std::to_string(replica));
  if (&warmed == this || warmed.replicas_.size() != 1)
    throw std::logic_error("rejoin() needs another dispatcher with one replica");
  warmed.close();
  if (const auto failure = warmed.failure()) throw Stopped(*failure);
  const Snapshot s = warmed.stats();
  Replica& from = *warmed.replicas_.front();
  Rejoined rejoined{replica, from.links, nullptr, warmed.ready_response(0)};
  if (!rejoined.ready_response || s.issued != s.completed)
    throw std::logic_error("rejoin() of an engine that is not ready and idle");
  {
    std::lock_guard lock(state_mutex_);
    const auto lost = std::ranges::find_if(losses_, [replica](const ReplicaLoss& loss) {
      return loss.why.replica == replica && !loss.rejoined_ns;
    });
    if (lost == losses_.end() || !from.link)
      throw std::logic_error("rejoin() of a replica that is not lost, or by an engine that has");
    rejoined.link = std::exchange(from.link, nullptr);
    lost->rejoined_ns = now_ns();
    reports_.emplace_back(std::move(rejoined));
  }
  wake_up_.ring();
}

bool Dispatcher::stopped() const {
  std::lock_guard lock(state_mutex_);
  return stopped_;
}

bool Dispatcher::wait(const std::function<bool()>& done, double timeout_s) {
  if (!(timeout_s >= 0)) throw std::invalid_argument("timeout must be at least 0");
  std::unique_lock lock(state_mutex_);
  state_changed_.wait_for(lock, std::chrono::duration<double>(std::min(timeout_s, kForeverS)),
                          [&] { return stopped_ || done(); });
  return done();
}

void Dispatcher::notify() {
  // The lock orders this after a waiter's call of done() and before its sleep.
  { std::lock_guard lock(state_mutex_); }
  state_changed_.notify_all();
}

Snapshot Dispatcher::live_stats() const {
  const std::int64_t until = stats_.until_ns.load();
  const std::int64_t now = until != 0 ? until : now_ns();
  Snapshot s;
  s.elapsed_ns = now - stats_.since_ns.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < replicas_.size(); ++i) {
    s.replicas.push_back(replicas_[i]->stats.snapshot(static_cast<int>(i), now));
    const ReplicaSnapshot& replica = s.replicas.back();
    s.admitted += replica.admitted;
    s.completed += replica.completed;
    s.prompt_tokens += replica.prompt_tokens;
    s.output_tokens += replica.output_tokens;
  }
  s.issued = stats_.issued.load(std::memory_order_relaxed);
  s.failed = stats_.failed.get();
  s.withdrawn = stats_.withdrawn.get();
  s.queued =
      std::max<std::int64_t>(0, s.issued - s.admitted - s.withdrawn - stats_.dropped.get());
  s.first_tokens = stats_.first_tokens.get();
  s.ttft_ns = stats_.ttft_ns.quantiles();
  s.tpot_ns = stats_.tpot_ns.quantiles();
  return s;
}

Snapshot Dispatcher::stats() const {
  Snapshot s = live_stats();
  const std::size_t num_samples = stats_.samples.size();
  std::vector<std::int64_t> latencies;
  latencies.reserve(num_samples);
  stats_.samples.for_each(num_samples, [&](const CompletedSample& sample) {
    latencies.push_back(sample.ttft_ns());
  });
  s.ttft_ns = quantiles_of(std::exchange(latencies, {}));
  stats_.samples.for_each(num_samples, [&](const CompletedSample& sample) {
    if (sample.output_tokens > 1) latencies.push_back(sample.tpot_ns());
  });
  s.tpot_ns = quantiles_of(std::move(latencies));
  return s;
}

SampleColumns Dispatcher::samples() const {
  const std::int64_t since = stats_.since_ns.load(std::memory_order_relaxed);
  const std::size_t count = stats_.samples.size();
  SampleColumns columns;
  for (auto* column : {&columns.sample_index, &columns.replica, &columns.prompt_tokens,
                       &columns.output_tokens, &columns.issued_ns, &columns.admitted_ns,
                       &columns.first_token_ns, &columns.completed_ns})
    column->reserve(count);
  stats_.samples.for_each(count, [&](const CompletedSample& sample) {
    columns.sample_index.push_back(sample.sample_index);
    columns.replica.push_back(sample.replica);
    columns.prompt_tokens.push_back(sample.prompt_tokens);
    columns.output_tokens.push_back(sample.output_tokens);
    columns.issued_ns.push_back(sample.issued_ns - since);
    columns.admitted_ns.push_back(sample.admitted_ns - since);
    columns.first_token_ns.push_back(sample.first_token_ns - since);
    columns.completed_ns.push_back(sample.completed_ns - since);
  });
  return columns;
}

StepLogColumns Dispatcher::steps() const {
  return steps_.columns(stats_.since_ns.load(std::memory_order_relaxed));
}

OverLimits Dispatcher::num_over() const {
  return {stats_.ttft_over.get(), stats_.tpot_over.get()};
}

void Dispatcher::withdraw_queued() {
  drained_.store(false);
  withdraw_.store(true);
  wake_up_.ring();
}

void Dispatcher::reset_stats(std::optional<LatencyLimits> limits) {
  std::lock_guard lock(incoming_mutex_);
  const Snapshot s = live_stats();
  if (s.issued != s.completed + s.withdrawn)
    throw std::logic_error("reset_stats() while samples are queued or in flight");
  stats_.issued.store(0);
  stats_.first_tokens.set(0);
  for (Counter* counter : {&stats_.withdrawn, &stats_.ttft_over, &stats_.tpot_over})
    counter->set(0);
  stats_.ttft_limit_ns.store(limits ? limits->ttft_ns : kNoLimit);
  stats_.tpot_limit_ns.store(limits ? limits->tpot_ns : kNoLimit);
  stats_.samples.clear();
  stats_.ttft_ns.clear();
  stats_.tpot_ns.clear();
  steps_.clear();
  for (const auto& replica : replicas_) replica->stats.reset();
  stats_.since_ns.store(now_ns());
}

}  // namespace sut
