// A dispatcher that continues with engines which an earlier one left idle.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <ctime>
#include <numeric>
#include <optional>
#include <string>
#include <thread>

#include "../dispatcher.h"
#include "../generate.h"
#include "engine_process.h"
#include "raw_connection.h"
#include "strict_sink.h"

namespace {

// Three ports that nothing else gets, as sut.serving.kept reserves them.
class ReservedPorts {
 public:
  ReservedPorts() {
    for (int i = 0; i < 3; ++i) {
      const int fd = fds_[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      const int on = 1;
      CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
      sockaddr_in address = loopback(0);
      socklen_t size = sizeof address;
      CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
      CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
      numbers_[i] = ntohs(address.sin_port);
    }
  }
  ~ReservedPorts() {
    for (const int fd : fds_) close(fd);
  }
  ReservedPorts(const ReservedPorts&) = delete;
  ReservedPorts& operator=(const ReservedPorts&) = delete;

  std::vector<sut::ReplicaPorts> of_one_replica() const {
    return {{numbers_[0], numbers_[1], numbers_[2]}};
  }
  int handshake() const { return numbers_[0]; }
  std::string input() const { return "tcp://127.0.0.1:" + std::to_string(numbers_[1]); }
  std::string output() const { return "tcp://127.0.0.1:" + std::to_string(numbers_[2]); }

 private:
  int fds_[3];
  int numbers_[3];
};

// Listens on a port of the loopback interface, without ZeroMQ.
class Listener {
 public:
  explicit Listener(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    CHECK(setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    const sockaddr_in address = loopback(port);
    CHECK(bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    CHECK(listen(fd_, 8) == 0);
  }
  ~Listener() { close(fd_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  void accept_and_close() const {
    const int connection = accept(fd_, nullptr, nullptr);
    CHECK(connection >= 0);
    close(connection);
  }

 private:
  const int fd_;
};

const RunKeys kKeys(1);

// A front-end of the one engine on `ports`, whose links end with it.
class FrontEnd {
 public:
  explicit FrontEnd(const ReservedPorts& ports, const std::string& adopted_ready = "",
                    std::uint32_t first_use = 1)
      : links_(std::make_shared<sut::ReplicaLinks>("127.0.0.1", kKeys.of_front_end(), kMaxOutputBytes,
                                                   ports.of_one_replica())) {
    if (!adopted_ready.empty()) links_->adopt(0, adopted_ready);
    sut::Dispatcher::Options options = kOptions;
    options.first_use = first_use;
    dispatcher_ = std::make_shared<sut::Dispatcher>(links_, make_store(100), sut::WireLayout{},
                                                    options);
    dispatcher_->set_credit(0, 10);
  }

  const std::string& handshake() const { return links_->handshake_endpoint(0); }
  sut::Dispatcher& dispatcher() { return *dispatcher_; }

 private:
  std::shared_ptr<sut::ReplicaLinks> links_;
  std::shared_ptr<sut::Dispatcher> dispatcher_;
};

void a_later_dispatcher_continues_with_an_idle_engine() {
  const ReservedPorts ports;
  std::optional<FrontEnd> front_end(std::in_place, ports);
  const EngineProcess engine(front_end->handshake(), kKeys.of_engine(), {"--on-disconnect", "reconnect"});
  CHECK(front_end->dispatcher().wait_ready(60));
  const std::string ready = *front_end->dispatcher().ready_response(0);
  std::vector<std::size_t> all(100);
  std::iota(all.begin(), all.end(), std::size_t{0});
  const auto answers = sut::generate(front_end->dispatcher(), all, 0, 60);
  std::uint32_t num_sent = 0;
  for (int run = 0; run < 3; ++run) {
    CHECK(front_end->dispatcher().num_sent(0) == 100);
    num_sent += 100;
    front_end.reset();
    front_end.emplace(ports, ready, 1 + num_sent);
    CHECK(front_end->dispatcher().wait_ready(60));
    CHECK(front_end->dispatcher().ready_response(0) == ready);
    CHECK(sut::generate(front_end->dispatcher(), all, 0, 60) == answers);
  }
}

void an_adopted_engine_that_dies_is_reported() {
  const ReservedPorts ports;
  std::optional<FrontEnd> front_end(std::in_place, ports);
  EngineProcess engine(front_end->handshake(), kKeys.of_engine(), {"--on-disconnect", "reconnect"});
  CHECK(front_end->dispatcher().wait_ready(60));
  const std::string ready = *front_end->dispatcher().ready_response(0);
  front_end.reset();
  front_end.emplace(ports, ready);
  CHECK(front_end->dispatcher().wait_ready(60));
  engine.kill();  // before it has sent an output
  CHECK(!front_end->dispatcher().wait([] { return false; }, 20));
  const auto failure = front_end->dispatcher().failure();
  CHECK(failure && failure->code == "connection_lost" && failure->replica == 0);
}

// The engine's end of its connections, by hand.
struct FakeEngine {
  explicit FakeEngine(const ReservedPorts& ports)
      : input(context, ZMQ_DEALER), output(context, ZMQ_PUSH) {
    for (sut::Socket* socket : {&input, &output})
      sut::curve::authenticate(*socket, kKeys.of_engine());
    input.set(ZMQ_ROUTING_ID, sut::protocol::kIdentity);
    input.connect(ports.input());
    output.connect(ports.output());
  }

  // The id of the next request.
  sut::RequestId receive_id() {
    zmq_pollitem_t item = input.readable();
    CHECK(zmq_poll(&item, 1, 20'000) == 1);
    sut::Frame type, request;
    CHECK(input.receive(type) && input.receive(request));
    return *sut::read_request_id({request.data() + 2, sut::kRequestIdLength});
  }

  // Ends a request with all its tokens.
  void answer(sut::RequestId id) {
    std::string text(sut::kRequestIdLength, '\0');
    sut::write_request_id(id, text.data());
    msgpack::sbuffer buffer;
    msgpack::packer<msgpack::sbuffer> p(buffer);
    p.pack_array(4).pack(0).pack_array(1).pack_array(6).pack(text);
    p.pack(std::vector<int>(kMaxTokens, 7));
    for (int i = 0; i < 3; ++i) p.pack_nil();
    p.pack(1).pack_nil().pack(0.5);
    sut::Frame frame(std::span<const char>(buffer.data(), buffer.size()));
    CHECK(output.send(frame, false));
  }

  sut::Context context;
  sut::Socket input;
  sut::Socket output;
};

void an_answer_to_an_earlier_dispatcher_is_refused() {
  const ReservedPorts ports;
  FrontEnd front_end(ports, "ready", 1000);
  FakeEngine engine(ports);
  CHECK(front_end.dispatcher().wait_ready(60));
  StrictSink sink(front_end.dispatcher());
  sink.expected = 2;
  front_end.dispatcher().issue(samples(2), sink);
  const sut::RequestId first = engine.receive_id(), second = engine.receive_id();
  CHECK(first.use == 1000 && second.use == 1000);
  engine.answer(first);
  engine.answer({second.slot, 1});  // the use that a first dispatcher would have sent
  CHECK(!front_end.dispatcher().wait([&] { return sink.done(); }, 20));
  const auto failure = front_end.dispatcher().failure();
  CHECK(failure && failure->code == "protocol_error");
  CHECK(front_end.dispatcher().stats().completed == 1);
}

void an_engine_with_one_connection_is_not_ready() {
  const ReservedPorts ports;
  FrontEnd front_end(ports, "ready");
  const sut::Context context;
  sut::Socket input(context, ZMQ_DEALER);
  sut::curve::authenticate(input, kKeys.of_engine());
  input.set(ZMQ_ROUTING_ID, sut::protocol::kIdentity);
  input.connect(ports.input());
  sut::Frame unexpected(std::string_view("ready"));
  CHECK(input.send(unexpected, false));
  const std::clock_t before = std::clock();
  CHECK(!front_end.dispatcher().wait_ready(0.3) && !front_end.dispatcher().failure());
  CHECK(std::clock() - before < CLOCKS_PER_SEC / 10);  // it waits without spinning
}

void an_engine_with_two_inputs_is_not_ready() {
  const ReservedPorts ports;
  FrontEnd front_end(ports, "ready");
  const sut::Context context;
  sut::Socket other(context, ZMQ_DEALER);
  sut::curve::authenticate(other, kKeys.of_engine());
  other.connect(ports.input());
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // it is first, or the test is void
  FakeEngine engine(ports);
  CHECK(!front_end.dispatcher().wait_ready(0.3) && !front_end.dispatcher().failure());
}

void an_engine_beside_strangers_is_ready() {
  const ReservedPorts ports;
  FrontEnd front_end(ports, "ready");
  const sut::Context context;
  sut::Socket stranger(context, ZMQ_DEALER);
  stranger.connect(ports.input());
  const int silent = connected_to(ports.input());  // it is closed after a time
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  FakeEngine engine(ports);
  CHECK(front_end.dispatcher().wait_ready(60));
  close(silent);
}

// An engine that the system stops for 3 s while it connects finds its connection closed.
void an_engine_whose_attempt_to_connect_fails_tries_again() {
  const ReservedPorts ports;
  std::optional<EngineProcess> engine;
  {
    const Listener listener(ports.handshake());
    engine.emplace("tcp://127.0.0.1:" + std::to_string(ports.handshake()), kKeys.of_engine());
    listener.accept_and_close();
    listener.accept_and_close();
  }
  FrontEnd front_end(ports);
  CHECK(front_end.dispatcher().wait_ready(60));
}

void ports_in_use_are_reported() {
  const ReservedPorts ports;
  const FrontEnd front_end(ports, "ready");
  bool threw = false;
  try {
    sut::ReplicaLinks("127.0.0.1", kKeys.of_front_end(), kMaxOutputBytes, ports.of_one_replica());
  } catch (const sut::SocketError&) {
    threw = true;
  }
  CHECK(threw);
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  replay_engine_path = argv[1];
  a_later_dispatcher_continues_with_an_idle_engine();
  an_adopted_engine_that_dies_is_reported();
  an_answer_to_an_earlier_dispatcher_is_refused();
  an_engine_with_one_connection_is_not_ready();
  an_engine_with_two_inputs_is_not_ready();
  an_engine_beside_strangers_is_ready();
  an_engine_whose_attempt_to_connect_fails_tries_again();
  ports_in_use_are_reported();
}
