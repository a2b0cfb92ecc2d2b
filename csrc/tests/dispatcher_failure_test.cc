// The dispatcher with engines that fail, and with other programs on its ports.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <future>

#include "../dispatcher.h"
#include "../generate.h"
#include "engine_process.h"
#include "strict_sink.h"

namespace {

// Slow enough that the first frame arrives before a fault: a reset loses frames in transit.
constexpr const char* kStepUs = "1000";

constexpr std::string_view kHello = "\x81\xa6status\xa5HELLO";

void a_fault_is_reported_with_its_code(const std::string& fault, const std::string& code) {
  sut::Dispatcher::Options options = kOptions;
  if (code == "stall") options.stall_deadline_s = 1.0;
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
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port =
      htons(static_cast<std::uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1))));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CHECK(write(fd, "GET / HTTP/1.0\r\n\r\n", 18) == 18);
  close(fd);
}

// The input and output endpoints in the dispatcher's reply to HELLO.
std::vector<std::string> endpoints_of_engine(const std::string& handshake) {
  const sut::Context context;
  sut::Socket asking(context, ZMQ_DEALER);
  asking.connect(handshake);
  sut::Frame hello(kHello);
  CHECK(asking.send(hello, false));
  zmq_pollitem_t item = asking.readable();
  CHECK(zmq_poll(&item, 1, 20'000) == 1);
  sut::Frame reply;
  CHECK(asking.receive(reply));
  std::vector<std::string> endpoints;
  const std::string text = reply.text();
  for (std::size_t at = text.find("tcp://"); at != text.npos; at = text.find("tcp://", at + 1)) {
    const std::size_t port = text.find(':', at + 6) + 1;
    endpoints.push_back(text.substr(at, text.find_first_not_of("0123456789", port) - at));
  }
  CHECK(endpoints.size() == 2);
  return endpoints;
}

// Like an engine of an earlier run on the same port.
void connect_and_leave(const std::string& endpoint, int type) {
  const sut::Context context;
  sut::Socket events(context, ZMQ_PAIR);
  sut::Socket client(context, type);
  CHECK(zmq_socket_monitor(client.handle(), "inproc://it", ZMQ_EVENT_HANDSHAKE_SUCCEEDED) == 0);
  events.connect("inproc://it");
  client.connect(endpoint);
  zmq_pollitem_t item = events.readable();
  CHECK(zmq_poll(&item, 1, 20'000) == 1);
  zmq_socket_monitor(client.handle(), nullptr, 0);  // before its reader closes
}

void other_programs_on_the_ports_do_no_harm() {
  System system(1);
  CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
  const std::string handshake = system.links->handshake_endpoint(0);
  ask_for_a_page(handshake);
  const std::vector<std::string> endpoints = endpoints_of_engine(handshake);
  for (const std::string& endpoint : endpoints) ask_for_a_page(endpoint);
  connect_and_leave(endpoints[0], ZMQ_DEALER);
  connect_and_leave(endpoints[1], ZMQ_PUSH);
  for (int i = 0; i < 10; ++i) {  // longer than the wait after a lost connection
    CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  CHECK(!system.dispatcher->failure());
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
  second.connect(endpoints_of_engine(system.links->handshake_endpoint(0))[1]);
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
  const sut::Context context;
  sut::ReplicaLink link(context, "127.0.0.1");
  auto asking = std::async(std::launch::async, endpoints_of_engine, link.handshake_endpoint());
  CHECK(wait_for(link, sut::ReplicaLink::kHandshake));
  link.serve_handshake();
  const std::vector<std::string> endpoints = asking.get();
  sut::Socket engine(context, ZMQ_DEALER);  // first, since it takes file descriptors too
  ask_for_a_page(endpoints[0]);
  CHECK(wait_for(link, sut::ReplicaLink::kInputLost));
  engine.connect(endpoints[0]);
  sut::Frame ready(std::string_view("ready"));
  CHECK(engine.send(ready, false));
  CHECK(wait_for(link, sut::ReplicaLink::kInput));
  CHECK(link.receive_ready());
  CHECK(!link.take_input_lost());
}

void a_hello_claiming_billions_of_values_is_harmless() {
  System system(1);
  const sut::Context context;
  sut::Socket client(context, ZMQ_DEALER);
  client.connect(system.links->handshake_endpoint(0));
  const auto send = [&](std::string_view bytes) {
    sut::Frame frame(bytes);
    CHECK(client.send(frame, false));
  };
  send("\xdd\xff\xff\xff\xff");  // an array of 2^32 - 1
  send(kHello);  // read second, so its answer shows that both were read
  zmq_pollitem_t item = client.readable();
  CHECK(zmq_poll(&item, 1, 20'000) == 1);
  CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
  CHECK(!system.dispatcher->failure());
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  replay_engine_path = argv[1];
  a_fault_is_reported_with_its_code("die@3", "connection_lost");
  a_fault_is_reported_with_its_code("dead@3", "engine_dead");
  a_fault_is_reported_with_its_code("stall@3", "stall");
  a_fault_is_reported_with_its_code("error@3", "request_failed");
  a_fault_is_reported_with_its_code("garbage@3", "protocol_error");
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
  other_programs_on_the_ports_do_no_harm();
  a_hello_claiming_billions_of_values_is_harmless();
}
