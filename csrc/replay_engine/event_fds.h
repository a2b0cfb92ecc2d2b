#pragma once

#include <csignal>
#include <cstdint>
#include <ctime>
#include <string>
#include <system_error>

#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace replay {

// Nanoseconds on the monotonic clock.
inline std::int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// Owns a file descriptor to be polled.
class EventFd {
 public:
  ~EventFd() { ::close(fd_); }
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;
  int fd() const { return fd_; }

 protected:
  EventFd(int fd, const char* what) : fd_(fd) {
    if (fd == -1) throw std::system_error(errno, std::generic_category(), what);
  }

 private:
  int fd_;
};

// Readable once SIGTERM or SIGINT has come. Make it before any thread starts: they are blocked
// in this thread and in those it starts.
class StopSignal : public EventFd {
 public:
  StopSignal() : EventFd(open(), "signalfd") {}

 private:
  static int open() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, nullptr);
    return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  }
};

// Readable from a moment on. Microseconds count here, and a poll's timeout is in milliseconds.
class Alarm : public EventFd {
 public:
  Alarm() : EventFd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd") {}

  // Setting it again makes it unreadable until the new moment.
  void set(std::int64_t at_ns) {
    itimerspec when{};
    when.it_value.tv_sec = at_ns / 1'000'000'000;
    when.it_value.tv_nsec = at_ns % 1'000'000'000;
    timerfd_settime(fd(), TFD_TIMER_ABSTIME, &when, nullptr);
  }

  // Unreadable until set().
  void clear() {
    std::uint64_t num_expired = 0;
    [[maybe_unused]] const auto size = ::read(fd(), &num_expired, sizeof num_expired);
  }
};

}  // namespace replay
