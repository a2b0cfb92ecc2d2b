#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "dispatcher.h"

namespace sut {

// One of LoadGen's tests (its StartTest), with a dispatcher as the system under test.
//
// LoadGen knows no failed sample and waits for ever for one that is missing. So when the
// dispatcher fails, the test can't be ended: LoadGen's logs are flushed and the thread inside
// StartTest is left behind. It keeps what it uses alive, but LoadGen's own globals die at exit,
// so the process must then leave without running destructors (_exit).
//
// One test at a time in a process: LoadGen's logger is a global.
class LoadGenTest {
 public:
  enum class Mode { kPerformance, kAccuracy };

  struct Options {
    std::string model;     // LoadGen's key, e.g. llama3_1-8b
    std::string scenario;  // Server, Offline or SingleStream
    Mode mode = Mode::kPerformance;
    std::string user_conf;   // path, or empty
    std::string audit_conf;  // path, or empty
    std::string log_dir;     // must exist
    std::string sut_name;
    std::string qsl_name;
  };

  // Reads the configuration. Throws std::invalid_argument for one that LoadGen can't read.
  LoadGenTest(std::shared_ptr<Dispatcher> dispatcher, const Options& options);

  // Never blocks for long: a test that still runs is given up, its dispatcher with it.
  ~LoadGenTest();
  LoadGenTest(const LoadGenTest&) = delete;
  LoadGenTest& operator=(const LoadGenTest&) = delete;

  // The limits on TTFT and TPOT; none where LoadGen holds a test to none.
  std::optional<std::pair<std::int64_t, std::int64_t>> limits_ns() const;

  // Throws std::logic_error when called twice.
  void start();

  // Blocks until StartTest has returned, or the dispatcher has stopped and LoadGen's logs are
  // flushed (true), or for `timeout_s` (false).
  bool wait(double timeout_s);

  // Whether StartTest returned by itself.
  bool finished() const;

 private:
  struct Session;  // what LoadGen's thread uses
  const std::shared_ptr<Session> session_;
  std::thread thread_;
};

}  // namespace sut
