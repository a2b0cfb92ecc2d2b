#pragma once

#include <atomic>
#include <cstdint>

#include "engine_process.h"
#include "strict_sink.h"

// A StrictSink that compares the answers too.
class AnswerSink final : public sut::ResponseSink {
 public:
  explicit AnswerSink(sut::Dispatcher& dispatcher) : strict_(dispatcher) {}

  void on_first_token(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
    CHECK(tokens[0] == prompt_of(id % 100)[0]);
    num_first_tokens_.fetch_add(1);
    strict_.on_first_token(id, tokens);
  }
  void on_complete(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
    const std::vector<int> prompt = prompt_of(id % 100);
    for (std::size_t n = 0; n < tokens.size(); ++n) CHECK(tokens[n] == prompt[n % prompt.size()]);
    strict_.on_complete(id, tokens);
  }
  void expect(int count) { strict_.expected = count; }
  bool done() const { return strict_.done(); }
  int num_first_tokens() const { return num_first_tokens_.load(); }

 private:
  StrictSink strict_;
  std::atomic<int> num_first_tokens_{0};
};

// Every sample that was issued is complete, by every count.
inline void check_counts(const sut::Dispatcher& dispatcher, std::int64_t issued) {
  const auto s = dispatcher.stats();
  CHECK(s.issued == issued && s.completed == issued && s.admitted == issued);
  CHECK(s.first_tokens == issued && s.queued == 0 && s.failed == 0);
  CHECK(s.output_tokens == issued * static_cast<std::int64_t>(kMaxTokens));
  for (const auto& replica : s.replicas) CHECK(replica.in_flight == 0);
  const auto columns = dispatcher.samples();
  CHECK(columns.sample_index.size() == static_cast<std::size_t>(issued));
  for (std::size_t i = 0; i < columns.sample_index.size(); ++i)
    CHECK(columns.issued_ns[i] <= columns.admitted_ns[i] &&
          columns.admitted_ns[i] <= columns.first_token_ns[i] &&
          columns.first_token_ns[i] <= columns.completed_ns[i]);
}
