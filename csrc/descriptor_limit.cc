#include "descriptor_limit.h"

#include <sys/resource.h>

#include <cerrno>
#include <filesystem>
#include <iterator>
#include <system_error>

namespace sut {

namespace {

std::size_t num_open_descriptors() {
  namespace fs = std::filesystem;
  const auto count = std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  return static_cast<std::size_t>(count) - 1;  // without the one that lists them
}

rlimit limits() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
    throw std::system_error(errno, std::generic_category(), "getrlimit");
  return limit;
}

}  // namespace

std::size_t descriptor_limit() { return limits().rlim_cur; }

void reserve_descriptors(std::size_t more, const std::string& user) {
  rlimit limit = limits();
  if (limit.rlim_cur == RLIM_INFINITY) return;
  const rlim_t needed = num_open_descriptors() + more;
  if (limit.rlim_cur >= needed) return;
  if (limit.rlim_max < needed)
    throw LimitError(EMFILE, user + " need " + std::to_string(needed) +
                                 " file descriptors, and the hard limit (RLIMIT_NOFILE) is " +
                                 std::to_string(limit.rlim_max) + ": EMFILE");
  limit.rlim_cur = needed;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
    throw std::system_error(errno, std::generic_category(), "setrlimit");
}

}  // namespace sut
