// Strangers, who know every port of a run and no key: they read nothing, answer nothing, end nothing
// and do not fill memory.
#include <sys/resource.h>
#include <sys/socket.h>

#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "../dispatcher.h"
#include "../generate.h"
#include "engine_process.h"
#include "raw_connection.h"
#include "strict_sink.h"

namespace {

constexpr std::string_view kHello = "\x81\xa6status\xa5HELLO";
constexpr std::string_view kOutputs = "\x90";  // invalid outputs, which end the run of their engine
using Keys = std::optional<sut::curve::EngineKeys>;

// A program on the network that behaves like an engine.
class Stranger {
 public:
  Stranger(const sut::LinkEndpoints& at, const Keys& keys)
      : handshake_(context_, ZMQ_DEALER), input_(context_, ZMQ_DEALER), output_(context_, ZMQ_PUSH) {
    for (sut::Socket* socket : {&handshake_, &input_, &output_})
      if (keys) sut::curve::authenticate(*socket, *keys);
    for (sut::Socket* socket : {&handshake_, &input_})
      socket->set(ZMQ_ROUTING_ID, sut::protocol::kIdentity);
    send(handshake_, at.handshake, kHello);
    send(input_, at.input, "ready");
    send(output_, at.output, kOutputs);
    send(output_, at.output, sut::protocol::kEngineCoreDead);
  }

  // Whether it was sent anything, within the time.
  bool hears(int timeout_ms) {
    zmq_pollitem_t items[] = {handshake_.readable(), input_.readable()};
    return zmq_poll(items, 2, timeout_ms) > 0;
  }

 private:
  void send(sut::Socket& socket, const std::string& endpoint, std::string_view bytes) {
    socket.connect(endpoint);
    sut::Frame frame(bytes);
    socket.send(frame, false);
  }

  sut::Context context_;
  sut::Socket handshake_;
  sut::Socket input_;
  sut::Socket output_;
};

// The strangers of one replica: without keys, with keys of their own, with the engine's public key
// and a secret key of their own, and the engine of the other replica.
std::vector<Keys> keys_of_strangers(const RunKeys& keys) {
  const sut::curve::KeyPair own = sut::curve::make_key_pair();
  const sut::curve::KeyPair stolen{keys.engines[0].public_key, own.secret_key};
  return {std::nullopt, {{keys.front_end.public_key, own}}, {{keys.front_end.public_key, stolen}},
          {keys.of_engine(1)}};
}

void strangers_before_the_engine_change_nothing() {
  const RunKeys keys(2);
  auto links =
      std::make_shared<sut::ReplicaLinks>("127.0.0.1", keys.of_front_end(), kMaxOutputBytes);
  sut::Dispatcher dispatcher(links, make_store(100), sut::WireLayout{}, kOptions);
  std::vector<std::unique_ptr<Stranger>> strangers;
  for (const Keys& each : keys_of_strangers(keys))
    strangers.push_back(std::make_unique<Stranger>(links->endpoints(0), each));
  for (const auto& stranger : strangers) CHECK(!stranger->hears(300));
  CHECK(!dispatcher.wait_ready(0) && !dispatcher.ready_response(0));
  const EngineProcess first(links->handshake_endpoint(0), keys.of_engine(0));
  const EngineProcess second(links->handshake_endpoint(1), keys.of_engine(1));
  CHECK(dispatcher.wait_ready(60));
  CHECK(*dispatcher.ready_response(0) != "ready");
  for (int i = 0; i < 2; ++i) dispatcher.set_credit(i, 10);
  StrictSink sink(dispatcher);
  sink.expected = 400;
  dispatcher.issue(samples(400), sink);
  CHECK(dispatcher.wait([&] { return sink.done(); }, 60));
  CHECK(dispatcher.stats().replicas[0].completed > 0);
  for (const auto& stranger : strangers) CHECK(!stranger->hears(0));
  CHECK(dispatcher.num_refused(0) >= 4 * 3 && dispatcher.num_refused(1) == 0);
  CHECK(!dispatcher.failure());
}

void strangers_beside_the_engine_change_nothing() {
  System system(2);
  std::vector<std::unique_ptr<Stranger>> strangers;
  for (const Keys& each : keys_of_strangers(system.keys))
    strangers.push_back(std::make_unique<Stranger>(system.links->endpoints(0), each));
  for (int i = 0; i < 10; ++i) {
    CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  for (const auto& stranger : strangers) CHECK(!stranger->hears(0));
  strangers.clear();  // their lost connections are not the engine's
  CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
  CHECK(!system.dispatcher->failure());
}

// Sends bytes until the other end closes the connection; returns how many it took.
std::size_t push(int fd, std::size_t size) {
  const std::vector<char> chunk(64 << 10, 'x');
  std::size_t sent = 0;
  while (sent < size) {
    const ssize_t count = send(fd, chunk.data(), chunk.size(), MSG_NOSIGNAL);
    if (count <= 0) break;
    sent += static_cast<std::size_t>(count);
  }
  return sent;
}

std::size_t peak_bytes() {
  rusage usage{};
  CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
  return static_cast<std::size_t>(usage.ru_maxrss) << 10;
}

// ZMTP 3 greetings with a mechanism, of ZMTP 2, and of ZMTP 1, each followed by the header of a frame
// of 1 GiB.
std::vector<std::string> greetings() {
  const std::string signature("\xff\0\0\0\0\0\0\0\1\x7f", 10);
  const std::string long_frame("\x02\0\0\0\0\x40\0\0\0", 9), long_command("\x06\0\0\0\0\x40\0\0\0", 9);
  std::vector<std::string> found;
  for (const std::string mechanism : {"NULL", "CURVE"}) {
    std::string greeting = signature + std::string("\3\0", 2) + mechanism;
    greeting.resize(64, '\0');
    found.push_back(greeting + long_frame);
    found.push_back(greeting + long_command);
  }
  found.push_back(signature + std::string("\1\5\0\0", 4) + long_frame);
  found.push_back(std::string("\xff\0\0\0\0\x40\0\0\0\0", 10));
  return found;
}

void a_frame_of_1_gib_is_refused() {
  System system(1);
  const sut::LinkEndpoints& at = system.links->endpoints(0);
  constexpr std::size_t kGib = std::size_t{1} << 30;
  const std::size_t before = peak_bytes();
  for (const std::string& endpoint : {at.handshake, at.input, at.output})
    for (const std::string& greeting : greetings()) {
      const int fd = connected_to(endpoint);
      CHECK(send(fd, greeting.data(), greeting.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(greeting.size()));
      CHECK(push(fd, kGib) < kGib / 4);  // what the kernel buffers
      close(fd);
    }
  CHECK(peak_bytes() - before < kGib / 8);
  CHECK(sut::generate(*system.dispatcher, {5}, 0, 60).size() == 1);
  CHECK(!system.dispatcher->failure());
}

void a_longer_frame_than_the_bound_is_refused() {
  System system(1);
  const sut::Context context;
  sut::Socket output(context, ZMQ_PUSH);
  sut::curve::authenticate(output, system.keys.of_engine());
  output.connect(system.links->endpoints(0).output);
  sut::Frame frame(kMaxOutputBytes + 1);
  CHECK(output.send(frame, false));
  CHECK(!system.dispatcher->wait([] { return false; }, 0.5));
  CHECK(!system.dispatcher->failure());  // it would be outputs on a second connection
}

void keys_are_required() {
  const RunKeys keys(1);
  for (const sut::FrontEndKeys& wrong :
       {sut::FrontEndKeys{"", keys.of_front_end().engines}, sut::FrontEndKeys{"short", {}},
        sut::FrontEndKeys{keys.front_end.secret_key, {""}},
        sut::FrontEndKeys{"short", keys.of_front_end().engines}}) {
    bool threw = false;
    try {
      sut::ReplicaLinks("127.0.0.1", wrong, kMaxOutputBytes);
    } catch (const std::exception&) {
      threw = true;
    }
    CHECK(threw);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  replay_engine_path = argv[1];
  strangers_before_the_engine_change_nothing();
  strangers_beside_the_engine_change_nothing();
  a_frame_of_1_gib_is_refused();
  a_longer_frame_than_the_bound_is_refused();
  keys_are_required();
}
