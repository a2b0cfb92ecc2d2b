#pragma once

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <span>
#include <system_error>

namespace sut {

// Waits for any of many file descriptors, at a cost that does not grow with those that are silent.
// Used by one thread at a time. A descriptor is reported again until it is read.
//
// A ZeroMQ socket's descriptor (Socket::descriptor()) is readable when the socket has news, not
// while it has messages. Any call on the socket may take the news. So whoever waits for it first
// reads the socket until it is empty, and again after each send().
class Poller {
 public:
  Poller() : fd_(epoll_create1(EPOLL_CLOEXEC)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
  }
  ~Poller() { ::close(fd_); }
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // wait() reports `key` when the descriptor is readable.
  void add(int fd, std::uint64_t key) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = key;
    if (epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &event) != 0)
      throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }

  // Before the descriptor is closed.
  void remove(int fd) {
    if (epoll_ctl(fd_, EPOLL_CTL_DEL, fd, nullptr) != 0)
      throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }

  // Blocks until a descriptor is readable, a signal arrives or the timeout has passed (-1: never),
  // and calls `visit` with the keys of those that are. If many are, the rest follows next time.
  template <typename Visit>
  void wait(int timeout_ms, Visit visit) {
    const int count = epoll_wait(fd_, events_.data(), static_cast<int>(events_.size()), timeout_ms);
    if (count < 0) {
      if (errno == EINTR) return;
      throw std::system_error(errno, std::generic_category(), "epoll_wait");
    }
    for (const epoll_event& event : std::span(events_).first(static_cast<std::size_t>(count)))
      visit(event.data.u64);
  }

 private:
  int fd_;
  std::array<epoll_event, 256> events_;
};

}  // namespace sut
