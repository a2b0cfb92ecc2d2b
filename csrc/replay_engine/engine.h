#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "fault.h"
#include "front_end.h"
#include "options.h"
#include "output_encoder.h"
#include "scheduler.h"

namespace replay {

// An engine core as a front-end sees it: the protocol around the Scheduler, in real time, with
// faults.
class Engine {
 public:
  Engine(const Options& options, const Connection::Keys& keys);

  // Serve until the front-end disconnects or a stop signal arrives, and return 0; or until a fault
  // or an invalid request, and return 1. Throws sut::SocketError, std::runtime_error.
  int run();

 private:
  std::optional<int> load();  // an exit code, or none once ready for requests
  int serve();
  int run_steps();
  void receive_requests();
  void accept(char type);
  void start_step(std::int64_t now);
  void finish_step();
  std::optional<int> inject_due_faults();
  double clock_s() const;

  const Options options_;
  FaultPlan faults_;
  const double ahead_s_;  // of this machine's clock
  Scheduler scheduler_;
  OutputEncoder encoder_;
  FrontEnd front_end_;
  sut::Frame frame_;
  std::vector<char> held_back_;  // a frame of outputs that a fault delays

  bool stalled_ = false;
  bool in_step_ = false;
  bool back_to_back_ = false;  // the last step left work for the next
  std::int64_t step_end_ns_ = 0;
  std::uint64_t num_requests_ = 0;
  std::uint64_t num_completed_ = 0;
  std::uint64_t num_tokens_ = 0;
};

}  // namespace replay
