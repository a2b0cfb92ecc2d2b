#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "../clock.h"
#include "../protocol.h"
#include "request_decoder.h"

namespace replay {
namespace {

using sut::now_ns;
using sut::protocol::kAbortRequest;
using sut::protocol::kAddRequest;
using sut::protocol::kEngineCoreDead;

constexpr std::string_view kGarbage = "\xc1\xc1\xc1\xc1 not msgpack";  // msgpack never uses c1
constexpr std::size_t kOversize = std::size_t{64} << 20;  // bytes
constexpr std::string_view kUnknownId = "ffffffffffffffff";
constexpr std::chrono::milliseconds kFlushLimit{4000};

// A step begins at the modelled end of the previous one, not when this process gets the CPU, so
// wake-up delays do not accumulate. A delay above this limit is not made up for.
constexpr std::int64_t kMaxCatchUpNs = 1'000'000;
// How often an engine whose steps take no time checks for signals and a lost front-end.
constexpr std::int64_t kCheckIntervalNs = 1'000'000;

}  // namespace

Engine::Engine(const Options& options, const Connection::Keys& keys)
    : options_(options),
      faults_(options.faults),
      ahead_s_(faults_.take(FaultKind::kClockAhead) ? 3600 : 0),
      scheduler_(options.limits, options.model),
      front_end_(options.handshake_address, options.reconnects, keys) {}

int Engine::run() {
  std::optional<int> exit_code = load();
  if (!exit_code) exit_code = serve();
  std::fprintf(stderr, "replay_engine: %s; %llu requests, %llu completed, %llu tokens\n",
               *exit_code == 0 ? front_end_.reason() : "failed",
               static_cast<unsigned long long>(num_requests_),
               static_cast<unsigned long long>(num_completed_),
               static_cast<unsigned long long>(num_tokens_));
  return *exit_code;
}

std::optional<int> Engine::load() {
  const std::optional<Addresses> addresses = front_end_.send_hello();
  if (!addresses) return 0;
  if (faults_.take(FaultKind::kDieLoading)) return 1;
  if (faults_.take(FaultKind::kNeverReady)) {
    while (front_end_.wait(FrontEnd::kForever)) front_end_.receive(frame_);
    return 0;
  }
  if (!front_end_.become_ready(*addresses,
                               ready_response(options_.limits, options_.vllm_version))) {
    return 0;
  }
  std::fprintf(stderr, "replay_engine: ready\n");
  return std::nullopt;
}

int Engine::serve() {
  try {
    return run_steps();
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "replay_engine: error: %s\n", error.what());
    front_end_.send(kEngineCoreDead);
    front_end_.flush_on_exit(kFlushLimit);
    return 1;
  }
}

int Engine::run_steps() {
  std::int64_t next_check_ns = 0;
  for (;;) {
    receive_requests();
    if (const auto exit_code = inject_due_faults()) return *exit_code;
    std::int64_t now = now_ns();
    if (!in_step_ && !stalled_ && scheduler_.has_work()) start_step(now);
    if (in_step_ && now >= step_end_ns_) {
      finish_step();
      if (const auto exit_code = inject_due_faults()) return *exit_code;
      if (now < next_check_ns) continue;
      next_check_ns = now + kCheckIntervalNs;
      if (!front_end_.wait(FrontEnd::kNotAtAll)) return 0;
    } else if (!front_end_.wait(in_step_ ? step_end_ns_ : FrontEnd::kForever)) {
      return 0;
    }
  }
}

void Engine::receive_requests() {
  while (front_end_.receive(frame_)) {
    const std::span<const char> bytes = frame_.bytes();
    const char type = bytes.size() == 1 ? bytes.front() : '\xff';
    if (!frame_.has_more() || (type != kAddRequest && type != kAbortRequest)) {
      throw std::invalid_argument("invalid message: expected an ADD or an ABORT request");
    }
    front_end_.receive(frame_);  // ZeroMQ delivers all frames of a message at once
    accept(type);
    while (frame_.has_more()) front_end_.receive(frame_);
  }
}

void Engine::accept(char type) {
  if (type == kAbortRequest) {
    for (const std::string& id : decode_abort(frame_.bytes())) scheduler_.abort(id);
    return;
  }
  Request request = decode_add(frame_.bytes());
  ++num_requests_;
  const auto due = [this](FaultKind kind) { return faults_.take(kind, num_requests_); };
  if (due(FaultKind::kError)) request.ends_empty = FinishReason::kError;
  if (due(FaultKind::kAbort)) request.ends_empty = FinishReason::kAbort;
  if (due(FaultKind::kEmpty)) request.ends_empty = FinishReason::kStop;
  request.is_cached = due(FaultKind::kCached);
  request.is_endless = due(FaultKind::kEndless);
  request.has_foreign_token = due(FaultKind::kForeignToken);
  if (!due(FaultKind::kForget)) scheduler_.add(std::move(request));
}

void Engine::start_step(std::int64_t now) {
  const Step step = scheduler_.begin_step();
  const double factor = faults_.step_factor(num_completed_);
  const std::int64_t duration =
      std::llround(std::min(static_cast<double>(step.duration_ns) * factor, kLongestStepNs));
  const bool catches_up = back_to_back_ && now - step_end_ns_ < kMaxCatchUpNs;
  step_end_ns_ = (catches_up ? step_end_ns_ : now) + duration;
  in_step_ = true;
}

double Engine::clock_s() const { return static_cast<double>(now_ns()) * 1e-9 + ahead_s_; }

void Engine::finish_step() {
  const std::span<const Output> outputs = scheduler_.end_step();
  SchedulerStats stats = scheduler_.stats();
  for (const Output& output : outputs) stats.num_cache_hits += output.num_cached_tokens;
  stats.num_draft_tokens = faults_.take(FaultKind::kDraft, num_completed_);
  std::span<const char> frame = encoder_.encode(outputs, stats, clock_s());
  if (faults_.take(FaultKind::kTruncate, num_completed_)) frame = frame.first(frame.size() / 2);
  if (faults_.take(FaultKind::kReorder, num_completed_)) {
    held_back_.assign(frame.begin(), frame.end());
  } else {
    front_end_.send(frame);
    if (faults_.take(FaultKind::kDuplicate, num_completed_)) front_end_.send(frame);
    if (!held_back_.empty()) front_end_.send(std::exchange(held_back_, {}));
  }
  for (const Output& output : outputs) {
    num_tokens_ += output.has_token;
    num_completed_ += output.finish_reason != FinishReason::kNone;
  }
  in_step_ = false;
  back_to_back_ = scheduler_.has_work();
}

std::optional<int> Engine::inject_due_faults() {
  if (num_requests_ == 0) return std::nullopt;
  const auto due = [this](FaultKind kind) { return faults_.take(kind, num_completed_); };
  if (due(FaultKind::kGarbage)) front_end_.send(kGarbage);
  if (due(FaultKind::kOversize)) front_end_.send(std::vector<char>(kOversize));
  if (due(FaultKind::kUnknownId)) {
    const Output output{.request_id = kUnknownId, .token = 1, .num_prompt_tokens = 1};
    const std::span<const Output> outputs(&output, 1);
    front_end_.send(encoder_.encode(outputs, scheduler_.stats(), clock_s()));
  }
  if (due(FaultKind::kResetInput)) front_end_.reset_input();
  if (due(FaultKind::kResetOutput)) front_end_.reset_output();
  stalled_ |= due(FaultKind::kStall);
  const bool dead = due(FaultKind::kDead);
  if (dead) front_end_.send(kEngineCoreDead);
  if (!dead && !due(FaultKind::kDie)) return std::nullopt;
  front_end_.flush_on_exit(kFlushLimit);
  return 1;
}

}  // namespace replay
