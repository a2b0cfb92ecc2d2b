#pragma once

#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "../dispatcher.h"
#include "check.h"
#include "engine_process.h"

// Checks the sink's contract: one thread, the first token before the completion, each once.
class StrictSink final : public sut::ResponseSink {
 public:
  explicit StrictSink(sut::Dispatcher& dispatcher) : dispatcher_(dispatcher) {}

  void on_first_token(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
    check_thread();
    CHECK(!tokens.empty());
    CHECK(seen_[id]++ == 0);
  }
  void on_complete(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
    check_thread();
    CHECK(seen_[id]++ == 1);
    CHECK(tokens.size() == kMaxTokens);
    if (completed_.fetch_add(1) + 1 == expected.load()) dispatcher_.notify();
  }

  bool done() const { return completed_.load() == expected.load(); }
  std::atomic<int> expected{0};

 private:
  void check_thread() {
    if (thread_ == std::thread::id()) thread_ = std::this_thread::get_id();
    CHECK(thread_ == std::this_thread::get_id());
  }
  sut::Dispatcher& dispatcher_;
  std::thread::id thread_;
  std::map<std::uintptr_t, int> seen_;
  std::atomic<int> completed_{0};
};

inline std::vector<sut::Sample> samples(std::size_t count) {
  std::vector<sut::Sample> samples;
  for (std::size_t i = 0; i < count; ++i) samples.push_back({i, i % 100});
  return samples;
}
