#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace sut {

// The system allows fewer file descriptors or sockets than are needed. The message names the limit.
class LimitError : public std::runtime_error {
 public:
  LimitError(int code_in, const std::string& what) : std::runtime_error(what), code(code_in) {}
  const int code;  // an errno
};

// How many file descriptors this process may have (the soft limit of RLIMIT_NOFILE).
std::size_t descriptor_limit();

// Makes room for `more` file descriptors: raises the soft limit as far as needed. `user` names in
// messages who needs them. Throws LimitError if the hard limit is too low.
void reserve_descriptors(std::size_t more, const std::string& user);

}  // namespace sut
