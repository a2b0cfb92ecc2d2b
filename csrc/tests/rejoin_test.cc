// An engine that was started again takes a lost replica's place: it gets samples like any other, what
// is left of the lost engine changes nothing, and its warm-up is in no count.
#include <chrono>
#include <csignal>
#include <functional>

#include "../generate.h"
#include "engine_process.h"
#include "strict_sink.h"

namespace {

constexpr int kAny = sut::Dispatcher::kAnyReplica;
const std::vector<std::string> kSlow = {"--step-base-us", "20000"};

void wait_until(const std::function<bool()>& condition) {
  for (int ms = 0; !condition(); ++ms) {
    CHECK(ms < 60'000);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void lose(System& system, int replica) {
  const std::size_t before = system.dispatcher->losses().size();
  system.dispatcher->lose({"engine_died", "gone", replica});
  wait_until([&] { return system.dispatcher->losses().size() > before; });
}

void warm_up(RestartedEngine& restarted) {
  CHECK(sut::generate(*restarted.dispatcher, {1, 2, 3, 4}, 0, 60).size() == 4);
}

bool throws(const std::function<void()>& call, const char* part) {
  try {
    call();
  } catch (const std::exception& error) {
    return std::string(error.what()).find(part) != std::string::npos;
  }
  return false;
}

void a_replica_rejoins() {
  System system(2);
  system.dispatcher->continue_after_loss(true);
  system.engines[1]->kill();
  wait_until([&] { return !system.dispatcher->losses().empty(); });
  CHECK(!system.dispatcher->losses()[0].rejoined_ns);
  RestartedEngine restarted;
  warm_up(restarted);
  system.dispatcher->rejoin(1, *restarted.dispatcher);
  const auto losses = system.dispatcher->losses();
  CHECK(losses.size() == 1 && losses[0].rejoined_ns > losses[0].lost_ns);
  CHECK(system.dispatcher->stats().issued == 0 && system.dispatcher->samples().replica.empty());
  CHECK(sut::generate(*system.dispatcher, {5, 6, 7}, 1, 60).size() == 3);  // for it alone
  for (int i = 0; i < 20; ++i) sut::generate(*system.dispatcher, {1, 2}, kAny, 60);
  const auto s = system.dispatcher->stats();
  CHECK(s.issued == 43 && s.completed == 43 && s.replicas[1].completed > 3);
  CHECK(!system.dispatcher->failure());
}

// It still has samples, and answers them beside the engine that took its place.
void the_lost_engine_is_not_heard() {
  System system(2, kOptions, kSlow);
  system.dispatcher->continue_after_loss(true);
  StrictSink sink(*system.dispatcher);
  sink.expected = 20;
  system.dispatcher->issue(samples(20), sink);
  wait_until([&] { return system.dispatcher->stats().first_tokens > 0; });
  system.engines[1]->send(SIGSTOP);
  lose(system, 1);
  RestartedEngine restarted(kSlow);
  warm_up(restarted);
  system.dispatcher->rejoin(1, *restarted.dispatcher);
  system.engines[1]->send(SIGCONT);
  CHECK(system.dispatcher->wait([&] { return sink.done(); }, 60));
  for (int i = 0; i < 20; ++i) CHECK(sut::generate(*system.dispatcher, {1, 2}, 1, 60).size() == 2);
  CHECK(!system.dispatcher->failure() && system.dispatcher->losses().size() == 1);
  const auto s = system.dispatcher->stats();
  CHECK(s.completed == s.issued && s.issued == 60 && s.admitted == 60);
}

// As on a node that was started again: its monotonic clock counts from the start.
void its_clock_may_be_behind_that_of_the_lost_engine() {
  System system(2, {"--fault", "clock-ahead"});
  system.dispatcher->continue_after_loss(true);
  CHECK(sut::generate(*system.dispatcher, {1, 2}, 1, 60).size() == 2);
  system.engines[1]->kill();
  wait_until([&] { return !system.dispatcher->losses().empty(); });
  RestartedEngine restarted;
  warm_up(restarted);
  system.dispatcher->rejoin(1, *restarted.dispatcher);
  CHECK(sut::generate(*system.dispatcher, {5, 6, 7}, 1, 60).size() == 3);
  CHECK(!system.dispatcher->failure() && system.dispatcher->losses().size() == 1);
}

void samples_wait_for_the_only_replica() {
  System system(1, kOptions, kSlow);
  system.dispatcher->continue_after_loss(true);
  system.dispatcher->await_rejoin(true);
  StrictSink sink(*system.dispatcher);
  sink.expected = 30;
  system.dispatcher->issue(samples(30), sink);
  wait_until([&] { return system.dispatcher->stats().first_tokens > 0; });
  system.engines[0]->kill();
  wait_until([&] { return !system.dispatcher->losses().empty(); });
  CHECK(system.dispatcher->stats().replicas[0].in_flight == 0);
  RestartedEngine restarted;
  warm_up(restarted);
  system.dispatcher->rejoin(0, *restarted.dispatcher);
  CHECK(system.dispatcher->wait([&] { return sink.done(); }, 60));
  const auto s = system.dispatcher->stats();
  CHECK(s.completed == 30 && s.admitted == 30 && s.first_tokens == 30 && s.failed == 0);
}

void what_waits_is_dropped_by_a_failure() {
  System system(1, kOptions, kSlow);
  system.dispatcher->continue_after_loss(true);
  system.dispatcher->await_rejoin(true);
  StrictSink sink(*system.dispatcher);
  sink.expected = 30;
  system.dispatcher->issue(samples(30), sink);
  wait_until([&] { return system.dispatcher->stats().admitted > 0; });
  lose(system, 0);
  system.dispatcher->fail({"engine_died", "no restart left", 0});
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 60));
  const auto s = system.dispatcher->stats();
  CHECK(s.failed + s.completed == 30 && system.dispatcher->stopped());
}

void a_replica_can_be_lost_again() {
  System system(2);
  system.dispatcher->continue_after_loss(true);
  lose(system, 1);
  RestartedEngine first;
  warm_up(first);
  system.dispatcher->rejoin(1, *first.dispatcher);
  CHECK(sut::generate(*system.dispatcher, {1, 2}, 1, 60).size() == 2);
  first.process->kill();
  wait_until([&] { return system.dispatcher->losses().size() == 2; });
  CHECK(system.dispatcher->losses()[1].why.code == "connection_lost");
  CHECK(sut::generate(*system.dispatcher, {1, 2}, kAny, 60).size() == 2);
  RestartedEngine second;
  warm_up(second);
  system.dispatcher->rejoin(1, *second.dispatcher);
  CHECK(sut::generate(*system.dispatcher, {1, 2}, 1, 60).size() == 2);
  for (const auto& loss : system.dispatcher->losses()) CHECK(loss.rejoined_ns);
  lose(system, 1);
  StrictSink sink(*system.dispatcher);
  sink.expected = 1;
  system.dispatcher->issue(samples(1), sink, 1);
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 60));
  CHECK(system.dispatcher->failure()->code == "engine_died");
}

// Dead before it could rejoin, after its warm-up, and in the moment of its return.
void an_engine_that_dies_again_is_lost_again() {
  System system(2);
  system.dispatcher->continue_after_loss(true);
  lose(system, 1);
  {
    RestartedEngine restarted;
    restarted.process->kill();
    CHECK(!restarted.dispatcher->wait([] { return false; }, 60));
    CHECK(throws([&] { system.dispatcher->rejoin(1, *restarted.dispatcher); }, "connection_lost"));
  }
  CHECK(!system.dispatcher->losses()[0].rejoined_ns);
  RestartedEngine restarted;
  warm_up(restarted);
  restarted.dispatcher->close();
  restarted.process->kill();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  system.dispatcher->rejoin(1, *restarted.dispatcher);
  wait_until([&] { return system.dispatcher->losses().size() == 2; });
  CHECK(sut::generate(*system.dispatcher, {1, 2}, kAny, 60).size() == 2);
}

void the_lost_engines_key_is_refused() {
  System system(2);
  system.dispatcher->continue_after_loss(true);
  lose(system, 1);
  RestartedEngine restarted;
  const EngineProcess with_old_key(restarted.links->handshake_endpoint(0),
                                   system.keys.of_engine(1));
  wait_until([&] { return restarted.dispatcher->num_refused(0) > 0; });
  warm_up(restarted);
  system.dispatcher->rejoin(1, *restarted.dispatcher);
  CHECK(sut::generate(*system.dispatcher, {1, 2}, 1, 60).size() == 2);
  const EngineProcess later(restarted.links->handshake_endpoint(0), system.keys.of_engine(1));
  wait_until([&] { return system.dispatcher->num_refused(1) > 1; });
  CHECK(sut::generate(*system.dispatcher, {1, 2}, 1, 60).size() == 2);
  CHECK(!system.dispatcher->failure() && system.dispatcher->losses().size() == 1);
}

void only_a_warm_engine_takes_a_lost_place() {
  System system(2);
  system.dispatcher->continue_after_loss(true);
  sut::Dispatcher& dispatcher = *system.dispatcher;
  {
    RestartedEngine restarted;
    CHECK(throws([&] { dispatcher.rejoin(0, *restarted.dispatcher); }, "not lost"));
    CHECK(throws([&] { dispatcher.rejoin(2, *restarted.dispatcher); }, "no replica"));
  }
  lose(system, 1);
  CHECK(throws([&] { dispatcher.rejoin(1, dispatcher); }, "another dispatcher"));
  System two(2);
  CHECK(throws([&] { dispatcher.rejoin(1, *two.dispatcher); }, "another dispatcher"));
  {
    RestartedEngine busy(kSlow);
    StrictSink sink(*busy.dispatcher);
    sink.expected = 1;
    busy.dispatcher->issue(samples(1), sink);
    CHECK(throws([&] { dispatcher.rejoin(1, *busy.dispatcher); }, "idle"));
  }
  RestartedEngine once;
  warm_up(once);
  dispatcher.rejoin(1, *once.dispatcher);
  CHECK(throws([&] { dispatcher.rejoin(1, *once.dispatcher); }, "not lost"));
  lose(system, 1);
  CHECK(throws([&] { dispatcher.rejoin(1, *once.dispatcher); }, "not lost"));
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  replay_engine_path = argv[1];
  a_replica_rejoins();
  the_lost_engine_is_not_heard();
  its_clock_may_be_behind_that_of_the_lost_engine();
  samples_wait_for_the_only_replica();
  what_waits_is_dropped_by_a_failure();
  a_replica_can_be_lost_again();
  an_engine_that_dies_again_is_lost_again();
  the_lost_engines_key_is_refused();
  only_a_warm_engine_takes_a_lost_place();
}
