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

// Owns a file descriptor that is polled.
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

// Readable once SIGTERM or SIGINT has arrived. Create it before any thread starts: it blocks the
// signals in this thread and in those started later.
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

// Readable from a set time on. Has a nanosecond resolution; a poll's timeout has milliseconds.
class Alarm : public EventFd {
 public:
  Alarm() : EventFd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd") {}

  // `at_ns` is on the clock of now_ns(). Unreadable until then, even if it was readable.
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
