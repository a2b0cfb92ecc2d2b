#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "clock.h"
#include "failure.h"
#include "in_flight.h"
#include "poller.h"
#include "replica_choice.h"
#include "replica_link.h"
#include "response_sink.h"
#include "sample_store.h"
#include "stats.h"
#include "step_log.h"
#include "wake_up.h"
#include "wire.h"

namespace sut {

// A native vLLM V1 front-end: takes samples, spreads them over replicas, passes answers to a sink.
//
// Threads. Any thread may call any member. One I/O thread, started by the constructor, owns the
// sockets and every sample in flight, and makes every call to a sink, so a sample's first token
// and its completion come from one thread, in that order. It blocks in epoll_wait and never spins,
// and a wake-up costs the same with any number of replicas: it touches only those with news.
//
// A sample waits in one queue until a replica has credit for it; the least loaded replica takes
// it. Samples for a given replica wait in a queue of their own, which that replica empties first.
// A replica never has more samples in flight than its credit.
//
// Every sample ends: in on_complete, or by the dispatcher's failure. After a failure no sink is
// called and everything issued is dropped. A failure is final; the first one is kept.
//
// A lost replica (dead, disconnected or stalled) is a failure. After continue_after_loss() it is one
// only if no other replica is left, or if there are samples for it alone. Otherwise what it has not
// completed starts again on the others, before anything that waits: an answer is always whole and
// from one replica. A first token that a sink has received is not reported again; the answer's own
// may differ from it. What a lost replica still sends is dropped.
//
// An engine that was started again takes a lost replica's place by rejoin(). It has other sockets
// and another key, so nothing of the lost one reaches it or is taken for its answer.
class Dispatcher {
 public:
  struct Options {
    std::size_t max_output_tokens = 0;  // per sample; more is a failure
    double sample_deadline_s = 0;       // from its sending to a replica to its completion there
    double stall_deadline_s = 0;        // silence of a replica with samples in flight
    // A number that is higher than the `use` of each request id that an earlier dispatcher sent to
    // the same engines.
    std::uint32_t first_use = 1;
  };

  static constexpr int kAnyReplica = -1;

  // Claims the links; their engines may already run. Throws std::logic_error.
  Dispatcher(std::shared_ptr<ReplicaLinks> links, std::shared_ptr<const SampleStore> store,
             WireLayout layout, Options options);
  ~Dispatcher();  // close()
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  const SampleStore& store() const { return *store_; }

  // Blocks until every replica is ready (true), the dispatcher has stopped or `timeout_s` has
  // passed (false). After a failure it is false, also where every replica was ready.
  bool wait_ready(double timeout_s);
  std::optional<std::string> ready_response(int replica) const;

  // The number of samples sent to a replica. reset_stats() keeps it.
  std::int64_t num_sent(int replica) const;

  // The connections to a replica's sockets whose peer did not have its engine's key.
  std::int64_t num_refused(int replica) const;

  // Sets the maximum number of samples in flight at a replica, initially 0.
  void set_credit(int replica, std::size_t max_in_flight);

  // Whether `sample_deadline_s` and `stall_deadline_s` apply; initially they do. An engine compiles
  // in its first steps, for longer than any later step takes.
  void watch_deadlines(bool on) { watches_deadlines_.store(on); }

  // Continue with the other replicas after the loss of one; initially it is a failure.
  void continue_after_loss(bool on) { continues_.store(on); }

  // After continue_after_loss(): the loss of the last replica is no failure either. Everything waits
  // until one rejoins. Initially it is.
  void await_rejoin(bool on) { awaits_rejoin_.store(on); }

  // The engine of `warmed`, a dispatcher with one replica and nothing queued or in flight, takes the
  // place of a lost replica. Closes `warmed`, so that its samples are none of this dispatcher's
  // counts. Its `first_use` must be above the use of every sample here: kWarmUpFirstUse. Throws
  // Stopped where `warmed` has failed, std::out_of_range, std::logic_error.
  void rejoin(int replica, Dispatcher& warmed);
  static constexpr std::uint32_t kWarmUpFirstUse = 1u << 31;

  // Reports that a replica is lost, for example because its process exited. Has no effect on one
  // that is lost already. Throws std::out_of_range.
  void lose(Failure why);

  // The replicas that were lost and did not stop the dispatcher, in order of their loss.
  std::vector<ReplicaLoss> losses() const;

  // Queues samples without waiting for a replica. `sink` must live until each of them is complete
  // or stopped() is true. After a failure the samples are dropped. Throws std::out_of_range.
  void issue(std::span<const Sample> samples, ResponseSink& sink, int replica = kAnyReplica);

  // Stops with a reason; the first one is kept. stopped() follows within a few milliseconds.
  void fail(Failure failure);
  std::optional<Failure> failure() const;

  // True once no sink will be called again.
  bool stopped() const;

  // Blocks until `done()` is true, the dispatcher has stopped or `timeout_s` has passed; returns
  // `done()`. It is evaluated under a lock after each notify(): it must be cheap and must not
  // call the dispatcher.
  bool wait(const std::function<bool()>& done, double timeout_s);
  void notify();

  Snapshot stats() const;
  // The same for a look at a running test: its cost does not grow with the samples.
  Snapshot live_stats() const;
  // The samples completed since reset_stats(), which must not run at the same time.
  SampleColumns samples() const;
  // Whether the engines' steps are logged from here on; initially not. Steps already logged stay.
  void log_steps(bool on) { steps_.turn(on); }
  // The steps logged since reset_stats(), which must not run at the same time.
  StepLogColumns steps() const;
  // The samples issued since reset_stats() that are above its limits for certain, complete or not:
  // one without a first token for longer than the limit on TTFT, and one whose TPOT would be above
  // its limit with as many tokens as a sample may have. LoadGen takes its times inside the sink's
  // calls, and a sample here is over by every time in them. Unanswered samples are counted within
  // some 250 ms.
  OverLimits num_over() const;
  // Resets every count. Throws std::logic_error while a sample is queued or in flight.
  void reset_stats(std::optional<LatencyLimits> limits = std::nullopt);

  // Takes the samples that are queued now from the queue: no sink hears of them. Those in flight
  // go on, and so do those that a lost replica had. Returns before it is done; is_drained() is true
  // once none is in flight and every call to a sink has returned. No sample may be issued meanwhile.
  void withdraw_queued();
  bool is_drained() const { return drained_.load(); }

  // Ends the I/O thread; stopped() is true afterwards. Blocks for some milliseconds. Idempotent.
  void close();

 private:
  struct Queued {
    Sample sample;
    ResponseSink* sink;
    std::int64_t issued_ns;
    int replica;
    bool ttft_over = false;  // counted in Stats
  };
  // A sample that a lost replica did not complete.
  struct Restarted {
    Queued sample;
    std::int64_t admitted_ns;  // to the first replica that had it
    std::int64_t first_token_ns;  // 0: none was reported
    std::int64_t first_reported_ns;
    bool tpot_over;
  };
  struct Replica {
    Replica(std::shared_ptr<ReplicaLinks> links_in, std::size_t place_in)
        : links(std::move(links_in)), place(place_in), link(&(*links)[place]) {}
    std::shared_ptr<ReplicaLinks> links;
    std::size_t place;  // in `links`
    ReplicaLink* link;  // null: given to another dispatcher by rejoin()
    ReplicaStats stats;
    std::atomic<std::size_t> credit{0};
    std::atomic<std::int64_t> num_sent{0};
    std::atomic<std::int64_t> num_refused{0};
    std::optional<std::string> ready_response;  // under state_mutex_
    bool ready = false;                         // this and below: I/O thread only
    std::int64_t last_heard_ns = 0;
    double last_made_s = 0;  // on the engine's clock, its latest outputs
    bool lost = false;
    std::int64_t num_refused_before = 0;  // by earlier links
    std::int64_t input_lost_ns = 0;  // 0: not lost
    std::deque<Queued> queue;        // samples for this replica alone
    unsigned news = 0;               // a bit for each ReplicaLink::Item that may have input
    bool is_touched = false;         // its room or its queue may have changed
    bool was_sent_to = false;        // since its input was read
  };

  // A lost replica's new engine.
  struct Rejoined {
    int replica;
    std::shared_ptr<ReplicaLinks> links;  // with one replica
    ReplicaLink* link;
    std::optional<std::string> ready_response;
  };
  using Report = std::variant<Failure, Rejoined>;  // of a replica: its loss, or its return

  static constexpr std::uint64_t kWakeUpKey = UINT64_MAX;  // the poller's other keys: link items

  void run();  // the I/O thread
  void wait_for_news();
  void note_news(std::uint64_t key);
  void take_incoming();
  void serve(Replica& replica, int index);
  void receive_ready(Replica& replica, int index);
  void receive_outputs(Replica& replica, int index);
  bool is_in_order(Replica& replica, int index);
  static std::string replica_text(int index);
  static bool is_engine_dead(Frame& frame);
  void lose_by_output(Replica& replica, int index);
  void lose_by_connection(int index);
  void lose_by_dead_engine(int index);
  bool is_silent(const Replica& replica, std::int64_t now) const;
  void lose_by_stall(Replica& replica, int index, std::int64_t now);
  void take_reports();
  void lose_replica(Failure why);
  void take_back_replica(Rejoined rejoined);
  void watch_link(int index);
  void note_all_news(int index);
  void fail_by_lost(int index);
  bool can_continue_without(int index) const;
  ReplicaLoss restart_samples_of(int index);
  bool handle_outputs(Replica& replica, int index, std::int64_t now);
  void log_step(int index, std::int64_t now);
  bool handle_output(Replica& replica, int index, const Outputs::Output& output, std::int64_t now);
  void keep_tokens(Replica& replica, InFlightTable::Slot& slot,
                   std::span<const std::int32_t> tokens, std::int64_t now);
  void complete(Replica& replica, const InFlightTable::Slot& slot, std::int64_t now);
  void touch(int index);
  bool has_room(const Replica& replica) const;
  void update_choice(int index);
  void admit();
  void send(const Queued& next, int index, const Restarted* earlier = nullptr);
  template <typename Visit>
  void for_each_queue(Visit visit);
  void read_inputs_after_sends();
  void check_deadlines();
  void count_late(std::int64_t now);
  void stop();
  bool failed() const { return failed_.load(std::memory_order_acquire); }

  const std::shared_ptr<ReplicaLinks> links_;
  const std::shared_ptr<const SampleStore> store_;
  const WireLayout layout_;
  const Options options_;

  WakeUp wake_up_;
  std::vector<std::unique_ptr<Replica>> replicas_;

  std::mutex incoming_mutex_;
  std::vector<Queued> incoming_;  // from issue() to the I/O thread

  // Guards failure_, reports_, losses_, stopped_, Replica::ready_response.
  mutable std::mutex state_mutex_;
  std::condition_variable state_changed_;
  std::vector<Report> reports_;      // from lose() and rejoin() to the I/O thread
  std::vector<ReplicaLoss> losses_;  // with times of now_ns()
  std::optional<Failure> failure_;
  bool stopped_ = false;
  std::atomic<bool> failed_{false};
  std::atomic<bool> closing_{false};
  std::atomic<bool> withdraw_{false};
  std::atomic<bool> drained_{false};
  std::atomic<bool> credits_changed_{false};
  std::atomic<bool> watches_deadlines_{true};
  std::atomic<bool> continues_{false};
  std::atomic<bool> awaits_rejoin_{false};

  Stats stats_;
  StepLog steps_;

  // I/O thread only.
  std::vector<Queued> taken_;
  std::deque<Queued> queue_;
  std::deque<Restarted> restarted_;  // before queue_
  std::size_t num_pinned_ = 0;  // samples in the replicas' queues
  InFlightTable in_flight_;
  Outputs outputs_;
  Poller poller_;
  bool is_rung_ = true;          // samples, a credit or a failure may be new
  std::vector<int> with_news_;   // replicas
  std::vector<int> touched_;     // replicas
  ReplicaChoice choice_;
  bool has_lost_input_ = false;  // of any replica
  bool is_draining_ = false;     // from withdraw_queued() until nothing is in flight
  std::int64_t next_deadline_check_ns_ = 0;

  std::mutex close_mutex_;
  std::thread io_thread_;  // last: it uses every member above
};

}  // namespace sut
