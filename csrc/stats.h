#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <vector>

#include "append_log.h"
#include "clock.h"
#include "counter.h"
#include "latency_histogram.h"
#include "quantiles.h"
#include "wire.h"

namespace sut {

// The longest wait, in seconds; fits every clock.
inline constexpr double kForeverS = 1e8;

inline constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

// One completed sample. Times are now_ns().
struct CompletedSample {
  std::uint32_t sample_index;
  std::uint32_t replica;
  std::uint32_t prompt_tokens;
  std::uint32_t output_tokens;  // at least 1
  std::int64_t issued_ns;
  std::int64_t admitted_ns;
  std::int64_t first_token_ns;
  std::int64_t completed_ns;

  std::int64_t ttft_ns() const { return first_token_ns - issued_ns; }
  // 0 for an answer of one token.
  std::int64_t tpot_ns() const {
    return output_tokens > 1 ? (completed_ns - first_token_ns) / (output_tokens - 1) : 0;
  }
};

// Completed samples in order of completion, as columns. Times count from the last reset_stats().
struct SampleColumns {
  std::vector<std::int64_t> sample_index, replica, prompt_tokens, output_tokens;
  std::vector<std::int64_t> issued_ns, admitted_ns, first_token_ns, completed_ns;
};

struct ReplicaSnapshot {
  int index = 0;
  std::int64_t in_flight = 0;  // sent but not complete
  std::int64_t admitted = 0;
  std::int64_t completed = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t output_tokens = 0;
  std::int64_t busy_ns = 0;  // time with at least one sample in flight
  std::int64_t running = 0;
  std::int64_t waiting = 0;
  double kv_cache_usage = 0;
  Shortcuts shortcuts;
};

struct Snapshot {
  std::int64_t elapsed_ns = 0;
  std::int64_t issued = 0;
  std::int64_t queued = 0;  // in the dispatcher's queue
  std::int64_t withdrawn = 0;  // taken from the queue: never sent
  std::int64_t admitted = 0;
  std::int64_t first_tokens = 0;
  std::int64_t completed = 0;
  std::int64_t failed = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t output_tokens = 0;
  // Of the completed samples: exact, or of live_stats() within 1/128.
  Quantiles ttft_ns;  // from issue() to the first token
  Quantiles tpot_ns;  // (completion - first token) / (tokens - 1)
  std::vector<ReplicaSnapshot> replicas;
};

// Counts of one replica. Only the I/O thread writes; any thread reads at any time.
class ReplicaStats {
 public:
  void admit(std::int64_t now, std::uint32_t num_prompt_tokens);
  void complete(std::int64_t now);
  // Uncounts samples in flight that will not be completed here, and their tokens so far.
  void take_back(std::int64_t now, std::int64_t num_samples, std::int64_t prompt_tokens,
                 std::int64_t output_tokens);
  void add_tokens(std::size_t count) { output_tokens_.add(static_cast<std::int64_t>(count)); }
  void set_scheduler(const SchedulerStats& stats);
  void add_shortcuts(const Shortcuts& found);

  std::int64_t in_flight() const { return in_flight_.get(); }
  ReplicaSnapshot snapshot(int index, std::int64_t now) const;
  void reset();  // with nothing in flight

 private:
  Counter in_flight_, admitted_, completed_, prompt_tokens_, output_tokens_;
  Counter busy_ns_, busy_since_;
  Counter running_, waiting_;
  Counter num_prefills_, num_stats_, cached_tokens_, cache_hits_, draft_tokens_;
  std::atomic<double> kv_cache_usage_{0};
};

// What a sample's latencies may be at most, in ns. A run's budget counts those above.
struct LatencyLimits {
  std::int64_t ttft_ns;
  std::int64_t tpot_ns;
};

// Samples that are over a limit whatever happens next, by what a sink can have measured: complete
// or not. Each is counted once, so a count never falls.
struct OverLimits {
  std::int64_t ttft = 0;
  std::int64_t tpot = 0;
};

// Counts of the whole dispatcher. `issued` has many writers; the rest only the I/O thread.
struct Stats {
  void add(const CompletedSample& sample);

  std::atomic<std::int64_t> since_ns{now_ns()};
  std::atomic<std::int64_t> until_ns{0};  // when the dispatcher stopped; 0 before that
  std::atomic<std::int64_t> issued{0};
  Counter first_tokens;
  Counter failed;   // not complete when the dispatcher stopped
  Counter dropped;  // those of them not sent to a replica
  Counter withdrawn;
  Counter ttft_over, tpot_over;
  // Written only while no sample is queued or in flight.
  std::atomic<std::int64_t> ttft_limit_ns{kNoLimit};
  std::atomic<std::int64_t> tpot_limit_ns{kNoLimit};
  AppendLog<CompletedSample> samples;
  LatencyHistogram ttft_ns, tpot_ns;  // of those
};

}  // namespace sut
