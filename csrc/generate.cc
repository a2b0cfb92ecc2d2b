#include "generate.h"

#include <atomic>
#include <limits>
#include <stdexcept>

namespace sut {
namespace {

class Collector final : public ResponseSink {
 public:
  Collector(Dispatcher& dispatcher, std::size_t num_samples)
      : dispatcher_(dispatcher), tokens_(num_samples), missing_(num_samples) {}

  void on_first_token(std::uintptr_t, std::span<const std::int32_t>) override {}
  void on_complete(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
    tokens_[id].assign(tokens.begin(), tokens.end());
    // Once the count is 0 the waiter may destroy this object: no member is used after that.
    Dispatcher& dispatcher = dispatcher_;
    if (missing_.fetch_sub(1, std::memory_order_acq_rel) == 1) dispatcher.notify();
  }

  bool done() const { return missing_.load(std::memory_order_acquire) == 0; }
  std::vector<std::vector<std::int32_t>> take() { return std::move(tokens_); }

 private:
  Dispatcher& dispatcher_;
  std::vector<std::vector<std::int32_t>> tokens_;
  std::atomic<std::size_t> missing_;
};

}  // namespace

std::vector<std::vector<std::int32_t>> generate(Dispatcher& dispatcher,
                                                const std::vector<std::size_t>& samples,
                                                int replica, double timeout_s) {
  // Checked before anything is issued: the collector must outlive its samples in flight.
  if (!(timeout_s >= 0)) throw std::invalid_argument("timeout must be at least 0");
  Collector collector(dispatcher, samples.size());
  std::vector<Sample> batch;
  for (std::size_t i = 0; i < samples.size(); ++i) batch.push_back({i, samples[i]});
  dispatcher.issue(batch, collector, replica);
  const auto done = [&] { return collector.done(); };
  if (dispatcher.wait(done, timeout_s)) return collector.take();

  // The I/O thread may still use the collector: it must stop before this returns.
  dispatcher.fail({"generate_timeout", "no answer within the timeout", replica});
  dispatcher.wait([] { return false; }, std::numeric_limits<double>::infinity());
  throw Stopped(dispatcher.failure().value_or(Failure{"closed", "the dispatcher was closed", -1}));
}

}  // namespace sut
