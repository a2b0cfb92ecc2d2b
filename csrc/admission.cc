#include "admission.h"

#include <zmq.h>

#include <exception>
#include <stdexcept>

#include "curve.h"

namespace sut {
namespace {

constexpr const char* kEndpoint = "inproc://zeromq.zap.01";
constexpr std::string_view kVersion = "1.0";
constexpr std::string_view kCurve = "CURVE";

// The frames of a request, in order. More may follow for other mechanisms.
enum RequestFrame : std::size_t {
  kRequestVersion,
  kRequestId,
  kDomain,
  kAddress,
  kRoutingId,
  kMechanism,
  kCredentials,
  kNumRequestFrames,
};

std::string decoded(const std::string& key) {
  std::string bytes(curve::kKeyBytes, '\0');
  if (key.size() != curve::kKeyLength ||
      !zmq_z85_decode(reinterpret_cast<std::uint8_t*>(bytes.data()), key.c_str()))
    throw std::invalid_argument("not a CURVE key");
  return bytes;
}

}  // namespace

Admission::Admission(const Context& context, const std::vector<std::string>& keys)
    : requests_(context, ZMQ_REP) {
  for (std::size_t i = 0; i < keys.size(); ++i) keys_.emplace(domain_of(i), decoded(keys[i]));
  if (zmq_bind(requests_.handle(), kEndpoint) != 0) throw SocketError("zmq_bind");
  thread_ = std::thread([this] { run(); });
}

Admission::~Admission() {
  stop_.ring();
  thread_.join();
}

void Admission::run() {
  zmq_pollitem_t items[] = {requests_.readable(), {nullptr, stop_.fd(), ZMQ_POLLIN, 0}};
  try {
    while (items[1].revents == 0) {
      answer();
      if (zmq_poll(items, 2, -1) < 0 && zmq_errno() != EINTR) return;
    }
  } catch (const std::exception&) {  // nobody is admitted any more
  }
}

void Admission::answer() {
  Frame frame;
  while (requests_.receive(frame)) {
    std::vector<std::string> request{frame.text()};
    while (frame.has_more() && requests_.receive(frame)) request.push_back(frame.text());
    request.resize(kNumRequestFrames);
    const bool ok = admits(request[kDomain], request[kMechanism], request[kCredentials]);
    const std::string_view status = ok ? "200" : "400", text = ok ? "OK" : "unknown key";
    const std::string_view reply[] = {kVersion, request[kRequestId], status, text, {}, {}};
    for (const std::string_view& part : reply) {
      Frame out{std::span<const char>(part)};
      requests_.send(out, &part != std::end(reply) - 1);
    }
  }
}

bool Admission::admits(const std::string& domain, std::string_view mechanism,
                       std::string_view key) const {
  const auto expected = keys_.find(domain);
  return mechanism == kCurve && expected != keys_.end() && key == expected->second;
}

}  // namespace sut
