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
// LoadGen has no failed samples and waits forever for a missing one. So when the dispatcher
// fails, StartTest cannot return: LoadGen's logs are flushed and the thread inside StartTest is
// left running. It keeps what it uses alive, but LoadGen's globals are destroyed at exit, so the
// process must then exit without running destructors (_exit).
//
// One test at a time in a process, because LoadGen's logger is a global.
class LoadGenTest {
 public:
  enum class Mode { kPerformance, kAccuracy };

  struct Options {
    std::string model;     // LoadGen's key, e.g. llama3_1-8b
    std::string scenario;  // Server, Offline or SingleStream
    Mode mode = Mode::kPerformance;
    std::string user_conf;   // the text of LoadGen's user.conf
    std::string audit_conf;  // the text of audit.config; empty: no audit
    std::string log_dir;     // must exist
    std::string sut_name;
    std::string qsl_name;
  };

  // Reads the configuration. Throws std::invalid_argument if LoadGen rejects it.
  LoadGenTest(std::shared_ptr<Dispatcher> dispatcher, const Options& options);

  // Blocks for 5 s at most: a running test is abandoned and its dispatcher fails.
  ~LoadGenTest();
  LoadGenTest(const LoadGenTest&) = delete;
  LoadGenTest& operator=(const LoadGenTest&) = delete;

  // The limits on TTFT and TPOT, where LoadGen enforces them on this test.
  std::optional<std::pair<std::int64_t, std::int64_t>> limits_ns() const;

  // Throws std::logic_error when called twice.
  void start();

  // Blocks until StartTest has returned or was left, or the dispatcher has stopped and LoadGen's
  // logs are flushed (true), or `timeout_s` has passed (false). LoadGen itself may hang: then it is
  // false however often it is called.
  bool wait(double timeout_s);

  // Whether StartTest returned after a complete test.
  bool finished() const;

  // Ends the test at LoadGen's next query: the samples queued are withdrawn, those in flight are
  // awaited, LoadGen's logs are flushed, without a result, and StartTest is left. A test that has
  // no next query completes. Another test may follow. Returns at once; wait() follows the end.
  void end();

  // Whether end() ended the test.
  bool ended() const;

 private:
  struct Session;  // what LoadGen's thread uses
  const std::shared_ptr<Session> session_;
  std::thread thread_;
};

}  // namespace sut
