#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "socket.h"
#include "wake_up.h"

namespace sut {

// Decides who may connect to a context's sockets: for each domain, the owner of one CURVE key. It
// answers libzmq's requests (ZAP, RFC 27) on a thread of its own. Construct it before those sockets
// bind, and destroy it after they are closed.
class Admission {
 public:
  // `keys[i]` is the public key of domain `domain_of(i)`. Throws std::invalid_argument.
  Admission(const Context& context, const std::vector<std::string>& keys);
  ~Admission();
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  static std::string domain_of(std::size_t index) { return std::to_string(index); }

 private:
  void run();
  void answer();
  bool admits(const std::string& domain, std::string_view mechanism, std::string_view key) const;

  std::unordered_map<std::string, std::string> keys_;  // decoded, by domain
  Socket requests_;
  WakeUp stop_;
  std::thread thread_;  // last: it uses every member above
};

}  // namespace sut
