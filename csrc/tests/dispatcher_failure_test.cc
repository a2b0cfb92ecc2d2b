// The dispatcher with engines that fail, and with strangers on its ports.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "../dispatcher.h"
#include "../generate.h"
#include "engine_process.h"
#include "strict_sink.h"

namespace {

void a_fault_is_a_failure_with_its_reason(const std::string& fault, const std::string& code) {
  sut::Dispatcher::Options options = kOptions;
  options.stall_deadline_s = 1.0;
  System system(1, options, {"--fault", fault});
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

void a_sample_over_its_deadline_is_a_failure() {
  sut::Dispatcher::Options options = kOptions;
  options.sample_deadline_s = 0.5;
  System system(1, options, {"--step-base-us", "300000"});
  StrictSink sink(*system.dispatcher);
  sink.expected = 1;
  system.dispatcher->issue(samples(1), sink);
  CHECK(!system.dispatcher->wait([&] { return sink.done(); }, 20));
  CHECK(system.dispatcher->failure()->code == "sample_deadline");
}

void a_killed_engine_is_noticed() {
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

// Where the dispatcher has an engine connect to, as it tells anyone who asks.
std::vector<std::string> endpoints_of_engine(const std::string& handshake) {
  const sut::Context context;
  sut::Socket asking(context, ZMQ_DEALER);
  asking.connect(handshake);
  sut::Frame hello(std::string_view("\x81\xa6status\xa5HELLO"));
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

// As a front-end's engine of another run would, on a port that was that run's before.
void connect_and_leave(const std::string& endpoint) {
  const sut::Context context;
  sut::Socket stranger(context, ZMQ_DEALER);
  stranger.connect(endpoint);
  zmq_pollitem_t item{stranger.handle(), 0, ZMQ_POLLOUT, 0};
  CHECK(zmq_poll(&item, 1, 20'000) == 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

void strangers_on_the_ports_do_no_harm() {
  System system(1);
  CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
  const std::string handshake = system.links->handshake_endpoint(0);
  ask_for_a_page(handshake);
  for (const std::string& endpoint : endpoints_of_engine(handshake)) {
    ask_for_a_page(endpoint);
    connect_and_leave(endpoint);
  }
  for (int i = 0; i < 10; ++i) {  // longer than a lost connection is waited on
    CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  CHECK(!system.dispatcher->failure());
}

void a_hello_that_claims_four_billion_values_does_no_harm() {
  System system(1);
  const sut::Context context;
  sut::Socket stranger(context, ZMQ_DEALER);
  stranger.connect(system.links->handshake_endpoint(0));
  const auto send = [&](std::string_view bytes) {
    sut::Frame frame(bytes);
    CHECK(stranger.send(frame, false));
  };
  send("\xdd\xff\xff\xff\xff");  // an array of 2^32 - 1
  send("\x81\xa6status\xa5HELLO");  // read after it, so its answer tells that both were
  zmq_pollitem_t item = stranger.readable();
  CHECK(zmq_poll(&item, 1, 20'000) == 1);
  CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
  CHECK(!system.dispatcher->failure());
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  replay_engine_path = argv[1];
  a_fault_is_a_failure_with_its_reason("die@3", "connection_lost");
  a_fault_is_a_failure_with_its_reason("dead@3", "engine_dead");
  a_fault_is_a_failure_with_its_reason("stall@3", "stall");
  a_fault_is_a_failure_with_its_reason("error@3", "request_failed");
  a_fault_is_a_failure_with_its_reason("garbage@3", "protocol_error");
  a_fault_is_a_failure_with_its_reason("truncate@3", "protocol_error");
  a_fault_is_a_failure_with_its_reason("unknown-id@3", "protocol_error");
  a_fault_is_a_failure_with_its_reason("reset@3", "connection_lost");
  a_sample_over_its_deadline_is_a_failure();
  a_killed_engine_is_noticed();
  strangers_on_the_ports_do_no_harm();
  a_hello_that_claims_four_billion_values_does_no_harm();
}
