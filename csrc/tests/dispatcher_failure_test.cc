// The dispatcher with engines that fail, and with other programs on its ports.
#include "../dispatcher.h"
#include "../generate.h"
#include "engine_process.h"
#include "raw_connection.h"
#include "strict_sink.h"

namespace {

// Slow enough that the first frame arrives before a fault: a reset loses frames in transit.
constexpr const char* kStepUs = "1000";

constexpr std::string_view kHello = "\x81\xa6status\xa5HELLO";

void a_fault_is_reported_with_its_code(const std::string& fault, const std::string& code) {
  sut::Dispatcher::Options options = kOptions;
  if (code == "stall") options.stall_deadline_s = 1.0;
  if (code == "sample_deadline") options.sample_deadline_s = 1.0;
  System system(1, options, {"--fault", fault, "--step-base-us", kStepUs});
  StrictSink sink(*system.dispatcher);
  sink.expected = 50;
  system.dispatcher->issue(samples(50), sink);
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 20));
  const auto failure = system.dispatcher->failure();
  CHECK(failure);
  if (failure->code != code)
    std::fprintf(stderr, "%s gave %s: %s\n", fault.c_str(), failure->code.c_str(),
                 failure->message.c_str());
  CHECK(failure->code == code && failure->replica == 0);
  CHECK(system.dispatcher->stopped());
  const auto s = system.dispatcher->stats();
  CHECK(s.completed + s.failed == s.issued);
  system.dispatcher->issue(samples(1), sink);  // dropped
  bool threw = false;
  try {
    sut::generate(*system.dispatcher, {0}, 0, 60);
  } catch (const sut::Stopped&) {
    threw = true;
  }
  CHECK(threw);
}

void a_deadline_that_is_not_watched_is_no_failure() {
  sut::Dispatcher::Options options = kOptions;
  options.stall_deadline_s = 0.1;
  options.sample_deadline_s = 0.5;
  System system(1, options, {"--fault", "stall@3", "--step-base-us", kStepUs});
  StrictSink sink(*system.dispatcher);
  sink.expected = 50;
  system.dispatcher->watch_deadlines(false);
  system.dispatcher->issue(samples(50), sink);
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 1.5));
  CHECK(!system.dispatcher->failure() && system.dispatcher->stats().completed > 0);
  system.dispatcher->watch_deadlines(true);
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 20));
  CHECK(system.dispatcher->failure()->code == "stall");
}

void a_sample_past_its_deadline_is_a_failure() {
  sut::Dispatcher::Options options = kOptions;
  options.sample_deadline_s = 0.5;
  System system(1, options, {"--step-base-us", "300000"});
  StrictSink sink(*system.dispatcher);
  sink.expected = 1;
  system.dispatcher->issue(samples(1), sink);
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 20));
  CHECK(system.dispatcher->failure()->code == "sample_deadline");
}

void a_killed_engine_is_reported() {
  System system(2);
  StrictSink sink(*system.dispatcher);
  sink.expected = 100'000;
  system.dispatcher->issue(samples(100'000), sink);
  system.dispatcher->wait([] { return false; }, 0.1);
  system.engines[1]->kill();
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 5));
  const auto failure = system.dispatcher->failure();
  CHECK(failure && failure->code == "connection_lost" && failure->replica == 1);
}

void is_not_ready_after_a_failure() {
  System system(1);
  CHECK(system.dispatcher->wait_ready(0));
  system.engines[0]->kill();
  CHECK(!system.dispatcher->wait([] { return false; }, 20));
  CHECK(system.dispatcher->failure() && system.dispatcher->ready_response(0));
  CHECK(!system.dispatcher->wait_ready(0));
}

void ask_for_a_page(const std::string& endpoint) {
  const int fd = connected_to(endpoint);
  CHECK(write(fd, "GET / HTTP/1.0\r\n\r\n", 18) == 18);
  close(fd);
}

void connect_and_leave(const std::string& endpoint, int type, const sut::curve::EngineKeys& keys) {
  const sut::Context context;
  sut::Socket events(context, ZMQ_PAIR);
  sut::Socket client(context, type);
  sut::curve::authenticate(client, keys);
  CHECK(zmq_socket_monitor(client.handle(), "inproc://it", ZMQ_EVENT_HANDSHAKE_SUCCEEDED) == 0);
  events.connect("inproc://it");
  client.connect(endpoint);
  zmq_pollitem_t item = events.readable();
  CHECK(zmq_poll(&item, 1, 20'000) == 1);
  zmq_socket_monitor(client.handle(), nullptr, 0);  // before its reader closes
}

void other_connections_that_end_do_no_harm() {
  System system(1);
  CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
  const sut::LinkEndpoints& endpoints = system.links->endpoints(0);
  for (const std::string& endpoint : {endpoints.handshake, endpoints.input, endpoints.output})
    ask_for_a_page(endpoint);
  connect_and_leave(endpoints.input, ZMQ_DEALER, system.keys.of_engine());
  connect_and_leave(endpoints.output, ZMQ_PUSH, system.keys.of_engine());
  for (int i = 0; i < 10; ++i) {  // longer than the wait after a lost connection
    CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  CHECK(!system.dispatcher->failure());
  CHECK(system.dispatcher->num_refused(0) == 3);
}

void a_lost_input_is_reported_while_idle() {
  System system(1, {"--fault", "reset-input@3"});
  StrictSink sink(*system.dispatcher);
  sink.expected = 9;  // one more than there are
  system.dispatcher->issue(samples(8), sink);
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 20));
  const auto failure = system.dispatcher->failure();
  CHECK(failure && failure->code == "connection_lost");
}

// Blocks the I/O thread at the first token, while the engine continues and its frames queue up.
class SlowSink final : public sut::ResponseSink {
 public:
  void on_first_token(std::uintptr_t, std::span<const std::int32_t>) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
  void on_complete(std::uintptr_t, std::span<const std::int32_t>) override {}
};

void frames_after_a_loss_only_give_its_reason(const std::string& fault,
                                              const std::string& code) {
  System system(1, {"--fault", fault, "--step-base-us", kStepUs});
  SlowSink sink;
  system.dispatcher->issue(samples(1), sink);
  CHECK(!system.dispatcher->wait([] { return false; }, 20));
  const auto failure = system.dispatcher->failure();
  CHECK(failure && failure->code == code);
  CHECK(system.dispatcher->stats().completed == 0);
}

// An engine whose end of a connection was reset reconnects while our end is still open.
void outputs_on_a_second_connection_are_refused() {
  System system(1);
  CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
  const sut::Context context;
  sut::Socket second(context, ZMQ_PUSH);
  sut::curve::authenticate(second, system.keys.of_engine());
  second.connect(system.links->endpoints(0).output);
  sut::Frame frame(std::string_view("\x90"));
  CHECK(second.send(frame, false));
  CHECK(!system.dispatcher->wait([] { return false; }, 20));
  const auto failure = system.dispatcher->failure();
  CHECK(failure && failure->code == "connection_lost");
}

bool wait_for(const sut::ReplicaLink& link, sut::ReplicaLink::Item item) {
  zmq_pollitem_t items = link.poll_items()[item];
  return zmq_poll(&items, 1, 20'000) == 1;
}

// The system reuses a closed connection's file descriptor.
void another_programs_connection_is_not_the_engines() {
  const RunKeys keys(1);
  sut::ReplicaLinks links("127.0.0.1", keys.of_front_end(), kMaxOutputBytes);
  sut::ReplicaLink& link = links[0];
  const sut::Context context;
  sut::Socket engine(context, ZMQ_DEALER);  // first, since it takes file descriptors too
  sut::curve::authenticate(engine, keys.of_engine());
  ask_for_a_page(link.endpoints().input);
  CHECK(wait_for(link, sut::ReplicaLink::kInputLost));
  engine.connect(link.endpoints().input);
  sut::Frame ready(std::string_view("ready"));
  CHECK(engine.send(ready, false));
  CHECK(wait_for(link, sut::ReplicaLink::kInput));
  CHECK(link.receive_ready());
  CHECK(!link.take_input_lost());
}

void only_the_first_valid_hello_is_answered() {
  const RunKeys keys(1);
  sut::ReplicaLinks links("127.0.0.1", keys.of_front_end(), kMaxOutputBytes);
  const sut::Context context;
  sut::Socket engine(context, ZMQ_DEALER);
  sut::curve::authenticate(engine, keys.of_engine());
  engine.connect(links.handshake_endpoint(0));
  const auto answered = [&](std::string_view bytes) {
    sut::Frame frame(bytes), reply;
    CHECK(engine.send(frame, false));
    CHECK(wait_for(links[0], sut::ReplicaLink::kHandshake));
    links[0].serve_handshake();
    zmq_pollitem_t item = engine.readable();
    return zmq_poll(&item, 1, 500) == 1 && engine.receive(reply);
  };
  CHECK(!answered("\xdd\xff\xff\xff\xff"));  // an array that claims 2^32 - 1 values
  CHECK(answered(kHello));
  CHECK(!answered(kHello));
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  replay_engine_path = argv[1];
  a_fault_is_reported_with_its_code("die@3", "connection_lost");
  a_fault_is_reported_with_its_code("dead@3", "engine_dead");
  a_fault_is_reported_with_its_code("stall@3", "stall");
  a_deadline_that_is_not_watched_is_no_failure();
  a_fault_is_reported_with_its_code("error@3", "request_failed");
  a_fault_is_reported_with_its_code("abort@3", "request_failed");
  a_fault_is_reported_with_its_code("empty@3", "empty_output");
  a_fault_is_reported_with_its_code("endless@3", "too_many_tokens");
  a_fault_is_reported_with_its_code("forget@3", "sample_deadline");
  a_fault_is_reported_with_its_code("foreign-token@3", "protocol_error");
  a_fault_is_reported_with_its_code("garbage@3", "protocol_error");
  a_fault_is_reported_with_its_code("oversize@3", "connection_lost");
  a_fault_is_reported_with_its_code("duplicate@3", "protocol_error");
  a_fault_is_reported_with_its_code("reorder@3", "protocol_error");
  a_fault_is_reported_with_its_code("truncate@3", "protocol_error");
  a_fault_is_reported_with_its_code("unknown-id@3", "protocol_error");
  a_fault_is_reported_with_its_code("reset-input@3", "connection_lost");
  a_fault_is_reported_with_its_code("reset-output@3", "connection_lost");
  a_lost_input_is_reported_while_idle();
  frames_after_a_loss_only_give_its_reason("dead@1", "engine_dead");
  frames_after_a_loss_only_give_its_reason("reset-output@1", "connection_lost");
  outputs_on_a_second_connection_are_refused();
  another_programs_connection_is_not_the_engines();
  a_sample_past_its_deadline_is_a_failure();
  a_killed_engine_is_reported();
  is_not_ready_after_a_failure();
  other_connections_that_end_do_no_harm();
  only_the_first_valid_hello_is_answered();
}
