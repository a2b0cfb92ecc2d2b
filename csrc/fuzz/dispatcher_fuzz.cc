// Two engines that send anything at any time. Whatever they send, each sample completes at most
// once, with the tokens of one request, after one report of its first token, on one thread; and
// the dispatcher completes every sample or stops. The input is a script of what the engines do.
#include <algorithm>
#include <array>
#include <chrono>
#include <msgpack.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "../dispatcher.h"
#include "../tests/check.h"
#include "../tests/request.h"
#include "fuzz.h"

namespace {

constexpr std::size_t kNumSamples = 6;
constexpr std::size_t kMaxTokens = 6;
constexpr int kNumReplicas = 2;
constexpr std::size_t kMaxActions = 64;

using Tokens = std::vector<std::int32_t>;

struct Request {
  std::string id;
  Tokens sent;
  bool ended = false;
};

class Script {
 public:
  explicit Script(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  bool at_end() const { return bytes_.empty(); }
  unsigned next() {
    if (bytes_.empty()) return 0;
    const unsigned value = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return value;
  }
  std::string raw() {
    const unsigned wanted = next();
    const std::size_t size = std::min<std::size_t>(wanted, bytes_.size());
    const std::string text(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(size));
    bytes_ = bytes_.subspan(size);
    return text;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

// The engine's ends of a replica's sockets.
class Engine {
 public:
  // `first_token` is the first of its tokens, which are all different.
  Engine(const sut::Context& context, const sut::LinkEndpoints& at, std::int32_t first_token)
      : context_(context),
        at_(at),
        handshake_(context, ZMQ_DEALER),
        input_(context, ZMQ_DEALER),
        next_token_(first_token) {
    input_.set(ZMQ_ROUTING_ID, sut::protocol::kIdentity);
    handshake_.connect(at.handshake);
    input_.connect(at.input);
    connect_output();
    send(input_, "ready");
  }

  void receive() {
    sut::Frame type, request;
    while (input_.receive(type)) {
      CHECK(input_.receive(request));
      requests_.push_back({request.text().substr(2, sut::kRequestIdLength), {}});
    }
  }

  // An output list of some of its requests, ended ones too.
  void send_outputs(Script& script) {
    const unsigned count = script.next() % 4;
    msgpack::sbuffer buffer;
    msgpack::packer<msgpack::sbuffer> p(buffer);
    p.pack_array(2).pack(0).pack_array(count);
    for (unsigned n = 0; n < count; ++n) {
      Request other{"ffffffffffffffff", {}};
      Request& request = requests_.empty() ? other : requests_[script.next() % requests_.size()];
      const unsigned what = script.next();
      Tokens tokens;
      for (unsigned t = 0; t < what % 4; ++t) tokens.push_back(next_token_++);
      pack(p, request, tokens, what / 4 % 6);
    }
    send(*output_, {buffer.data(), buffer.size()});
  }

  // A last token for each request that has not ended.
  void finish() {
    msgpack::sbuffer buffer;
    msgpack::packer<msgpack::sbuffer> p(buffer);
    const auto open = std::ranges::count(requests_, false, &Request::ended);
    if (open == 0) return;
    p.pack_array(2).pack(0).pack_array(static_cast<std::uint32_t>(open));
    for (Request& request : requests_)
      if (!request.ended) pack(p, request, {next_token_++}, 1);
    send(*output_, {buffer.data(), buffer.size()});
  }

  // Any bytes; outputs of requests that have not arrived here yet are left out.
  void send_output(std::string_view bytes, bool more) {
    sut::Outputs outputs;
    if (sut::decode_outputs(bytes, {}, outputs).empty()) {
      for (const auto& output : outputs.outputs) {
        Request* const request = find(output.id);
        if (!request) return;
        const auto tokens = outputs.tokens_of(output);
        note(*request, {tokens.begin(), tokens.end()},
             output.finish_reason != sut::FinishReason::kNone);
      }
    }
    send(*output_, bytes, more);
  }
  void send_input(std::string_view bytes) { send(input_, bytes); }
  void send_handshake(std::string_view bytes) { send(handshake_, bytes); }
  void connect_output() {
    output_.emplace(context_, ZMQ_PUSH);
    output_->connect(at_.output);
  }

  bool has_sent(const Tokens& tokens) const {
    return std::ranges::any_of(requests_, [&](const Request& r) { return r.sent == tokens; });
  }

 private:
  static void pack(msgpack::packer<msgpack::sbuffer>& p, Request& request, const Tokens& tokens,
                   unsigned reason) {
    p.pack_array(6).pack(request.id).pack(tokens).pack_nil().pack_nil().pack_nil();
    if (reason == 5)
      p.pack_nil();
    else
      p.pack(reason);
    note(request, tokens, reason != 5);
  }
  static void note(Request& request, const Tokens& tokens, bool ends) {
    if (request.ended) return;
    request.sent.insert(request.sent.end(), tokens.begin(), tokens.end());
    request.ended = ends;
  }
  Request* find(sut::RequestId id) {
    char text[sut::kRequestIdLength];
    sut::write_request_id(id, text);
    const auto found =
        std::ranges::find(requests_, std::string_view(text, sizeof text), &Request::id);
    return found == requests_.end() ? nullptr : &*found;
  }
  static void send(sut::Socket& socket, std::string_view bytes, bool more = false) {
    sut::Frame frame(bytes);
    socket.send(frame, more);
  }

  const sut::Context& context_;
  const sut::LinkEndpoints at_;
  sut::Socket handshake_;
  sut::Socket input_;
  std::optional<sut::Socket> output_;
  std::vector<Request> requests_;
  std::int32_t next_token_;
};

class Sink final : public sut::ResponseSink {
 public:
  void on_first_token(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
    check_thread();
    CHECK(!tokens.empty() && calls_.at(id)++ == 0);
  }
  void on_complete(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
    check_thread();
    CHECK(calls_.at(id)++ == 1);
    answers.at(id).assign(tokens.begin(), tokens.end());
    num_completed.fetch_add(1);
  }

  std::atomic<std::size_t> num_completed{0};
  std::array<Tokens, kNumSamples> answers;

 private:
  void check_thread() {
    if (thread_ == std::thread::id()) thread_ = std::this_thread::get_id();
    CHECK(thread_ == std::this_thread::get_id());
  }
  std::thread::id thread_;
  std::array<int, kNumSamples> calls_{};
};

std::shared_ptr<sut::SampleStore> make_store() {
  auto store = std::make_shared<sut::SampleStore>();
  for (std::size_t i = 0; i < kNumSamples; ++i) store->add(encode_request({1, 2}, 2), 2, 2);
  store->seal();
  return store;
}

void act(Script& script, std::vector<Engine>& engines, sut::Dispatcher& dispatcher) {
  const unsigned action = script.next();
  const unsigned index = action / 16 % kNumReplicas;
  Engine& engine = engines[index];
  switch (action % 16) {
    case 0:
      engine.send_output(script.raw(), false);
      break;
    case 1:  // further frames of a message, which are ignored
      engine.send_output(script.raw(), true);
      engine.send_output(script.raw(), false);
      break;
    case 2:
      engine.send_output(sut::protocol::kEngineCoreDead, false);
      break;
    case 3:
      engine.connect_output();
      break;
    case 4:
      engine.send_input(script.raw());
      break;
    case 5:
      engine.send_handshake(script.raw());
      break;
    case 6:
      dispatcher.lose({"engine_died", "", static_cast<int>(index)});
      break;
    case 7:
      dispatcher.set_credit(static_cast<int>(index), 1 + script.next() % 4);
      break;
    case 8:
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      break;
    default:
      engine.send_outputs(script);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Script script({data, size});
  const auto links =
      std::make_shared<sut::ReplicaLinks>("127.0.0.1", sut::ReplicaLinks::ForBenchmarks{kNumReplicas});
  const sut::Context context;
  Sink sink;
  std::vector<Engine> engines;
  for (int i = 0; i < kNumReplicas; ++i) engines.emplace_back(context, links->endpoints(i), 1 + i * 1'000'000);
  static const auto store = make_store();
  sut::Dispatcher dispatcher(links, store, {}, {kMaxTokens, 3600, 3600});
  CHECK(dispatcher.wait_ready(60));

  const unsigned setting = script.next();
  dispatcher.continue_after_loss(setting % 2 == 0);
  for (int i = 0; i < kNumReplicas; ++i) dispatcher.set_credit(i, 1 + setting / 2 % 4);
  std::vector<sut::Sample> samples;
  for (std::size_t i = 0; i < kNumSamples; ++i) samples.push_back({i, i});
  dispatcher.issue(samples, sink);
  for (std::size_t n = 0; n < kMaxActions && !script.at_end(); ++n) {
    for (Engine& engine : engines) engine.receive();
    act(script, engines, dispatcher);
  }
  const auto done = [&] { return sink.num_completed.load() == kNumSamples; };
  for (int round = 0; !done() && !dispatcher.stopped(); ++round) {
    CHECK(round < 60'000);
    for (Engine& engine : engines) {
      engine.receive();
      engine.finish();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  dispatcher.close();

  const sut::Snapshot s = dispatcher.stats();
  CHECK(s.issued == kNumSamples && s.completed + s.failed == s.issued);
  CHECK(static_cast<std::size_t>(s.completed) == sink.num_completed.load());
  for (const Tokens& answer : sink.answers)
    CHECK(answer.empty() || std::ranges::any_of(engines, [&](const Engine& engine) {
      return engine.has_sent(answer);
    }));
  return 0;
}
