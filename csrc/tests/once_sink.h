#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "../dispatcher.h"
#include "check.h"
#include "engine_process.h"

inline constexpr std::size_t kNumPrompts = 100;

// Checks the calls for samples 0 to count - 1. All sinks of a dispatcher share `thread`.
class OnceSink final : public sut::ResponseSink {
 public:
  OnceSink(sut::Dispatcher& dispatcher, std::size_t count, std::thread::id& thread)
      : dispatcher_(dispatcher), calls_(count), thread_(thread) {}

  void on_first_token(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
    check_thread();
    CHECK(calls_.at(id)++ == 0);
    check_answer(id, tokens);
  }
  void on_complete(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
    check_thread();
    CHECK(calls_.at(id)++ == 1);
    CHECK(tokens.size() == kMaxTokens);
    check_answer(id, tokens);
    if (completed_.fetch_add(1) + 1 == calls_.size()) dispatcher_.notify();
  }

  bool done() const { return completed_.load() == calls_.size(); }
  std::int64_t completed() const { return static_cast<std::int64_t>(completed_.load()); }
  // Once no call can follow: the samples whose first token was reported and that did not complete.
  std::int64_t left_open() const { return std::ranges::count(calls_, 1); }

 private:
  void check_thread() {
    if (thread_ == std::thread::id()) thread_ = std::this_thread::get_id();
    CHECK(thread_ == std::this_thread::get_id());
  }
  static void check_answer(std::uintptr_t id, std::span<const std::int32_t> tokens) {
    static const std::vector<std::vector<int>> prompts = [] {
      std::vector<std::vector<int>> all;
      for (std::size_t i = 0; i < kNumPrompts; ++i) all.push_back(prompt_of(i));
      return all;
    }();
    const std::vector<int>& prompt = prompts[id % kNumPrompts];
    CHECK(!tokens.empty());
    for (std::size_t n = 0; n < tokens.size(); ++n) CHECK(tokens[n] == prompt[n % prompt.size()]);
  }

  sut::Dispatcher& dispatcher_;
  std::vector<std::uint8_t> calls_;
  std::thread::id& thread_;
  std::atomic<std::size_t> completed_{0};
};
