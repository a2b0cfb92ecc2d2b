// LoadGen's real StartTest with the dispatcher: it completes several times in one process, and
// when an engine dies during a test, wait() returns and the logs are on disk.
#include "../loadgen_test.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine_process.h"

namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

sut::LoadGenTest::Options options_in(const fs::path& folder, const std::string& scenario,
                                     sut::LoadGenTest::Mode mode) {
  fs::create_directories(folder);
  const std::string user_conf = "test." + scenario + ".min_duration = 300\n" +
                                "test." + scenario + ".min_query_count = 200\n" +
                                "test." + scenario + ".use_token_latencies = 1\n" +
                                "test.Server.target_qps = 400\n" +
                                "test.Server.target_latency = 0\n";
  return {"test", scenario, mode, user_conf, "", folder.string(), "replay", "numbers"};
}

void every_scenario_completes(const fs::path& folder) {
  using Mode = sut::LoadGenTest::Mode;
  System system(2);
  for (const char* scenario : {"Server", "Offline", "SingleStream"})
    for (const Mode mode : {Mode::kPerformance, Mode::kAccuracy}) {
      const fs::path logs =
          folder / (scenario + std::string(mode == Mode::kPerformance ? "-performance" : "-accuracy"));
      sut::LoadGenTest test(system.dispatcher, options_in(logs, scenario, mode));
      test.start();
      CHECK(test.wait(60));
      CHECK(test.finished());
      const std::string detail = read(logs / "mlperf_log_detail.txt");
      CHECK(detail.find("\"is_error\": true") == std::string::npos);
      if (mode == Mode::kPerformance)
        CHECK(detail.find("result_validity") != std::string::npos);
      else
        CHECK(read(logs / "mlperf_log_accuracy.json").find("token_count") != std::string::npos);
      const auto s = system.dispatcher->stats();
      CHECK(s.issued == s.completed && s.failed == 0);
    }
}

// Three times in a row, with samples queued, in flight and complete; then a whole test.
void a_test_can_be_ended(const fs::path& folder) {
  System system(1, {"--step-base-us", "3000"});
  for (int i = 0; i < 3; ++i) {
    const fs::path logs = folder / ("ended-" + std::to_string(i));
    system.dispatcher->reset_stats();
    sut::LoadGenTest test(system.dispatcher,
                          options_in(logs, "Server", sut::LoadGenTest::Mode::kPerformance));
    test.start();
    while (system.dispatcher->stats().queued < 20) CHECK(!test.wait(0.001));
    test.end();
    CHECK(test.wait(30));
    CHECK(test.ended() && !test.finished());
    const auto s = system.dispatcher->stats();
    CHECK(s.completed > 0 && s.withdrawn > 0 && s.issued == s.completed + s.withdrawn);
    CHECK(s.issued < 200 && !system.dispatcher->failure());
    const std::string detail = read(logs / "mlperf_log_detail.txt");
    CHECK(detail.find("generated_query_count") != std::string::npos);
    CHECK(detail.find("result_validity") == std::string::npos);
    CHECK(detail.find("\"is_error\": true") == std::string::npos);
  }
  system.dispatcher->reset_stats();
  sut::LoadGenTest whole(system.dispatcher, options_in(folder / "whole", "Server",
                                                       sut::LoadGenTest::Mode::kPerformance));
  whole.start();
  CHECK(whole.wait(60));
  CHECK(whole.finished() && !whole.ended());
  const std::string detail = read(folder / "whole" / "mlperf_log_detail.txt");
  CHECK(detail.find("result_validity") != std::string::npos);
  CHECK(detail.find("\"is_error\": true") == std::string::npos);
}

// Without a next query there is nothing to leave LoadGen at: the test completes.
void a_test_past_its_last_query_completes(const fs::path& folder) {
  System system(1, {"--step-base-us", "1000"});
  sut::LoadGenTest test(system.dispatcher, options_in(folder / "late", "Offline",
                                                      sut::LoadGenTest::Mode::kPerformance));
  test.start();
  while (system.dispatcher->stats().completed < 1) CHECK(!test.wait(0.001));
  test.end();
  CHECK(test.wait(60));
  CHECK(test.finished() && !test.ended());
}

void an_invalid_user_conf_is_refused(const fs::path& folder) {
  System system(1);
  auto options = options_in(folder / "bad", "Server", sut::LoadGenTest::Mode::kPerformance);
  options.user_conf = "test.Server.target_qps = many\n";
  try {
    sut::LoadGenTest test(system.dispatcher, options);
    CHECK(false);
  } catch (const std::invalid_argument&) {
  }
}

void a_dead_engine_ends_the_wait(const fs::path& folder) {
  System system(1, {"--fault", "die@20"});
  sut::LoadGenTest test(system.dispatcher, options_in(folder / "dead", "Server",
                                                      sut::LoadGenTest::Mode::kPerformance));
  test.start();
  CHECK(test.wait(20));
  CHECK(!test.finished());
  CHECK(system.dispatcher->failure()->code == "connection_lost");
  CHECK(!read(folder / "dead" / "mlperf_log_detail.txt").empty());
}

void a_test_without_a_log_folder_fails(const fs::path& folder) {
  System system(1);
  auto options = options_in(folder / "none", "Server", sut::LoadGenTest::Mode::kPerformance);
  options.log_dir = folder / "none" / "missing";
  sut::LoadGenTest test(system.dispatcher, options);
  test.start();
  CHECK(test.wait(20));
  CHECK(!test.finished());
  CHECK(system.dispatcher->failure()->code == "loadgen_error");
}

// The thread that writes LoadGen's logs waits for the reader of a pipe, and AbortTest for it.
void an_abort_that_never_returns_does_not_hold_its_caller(const fs::path& folder) {
  System system(1);
  {
    sut::LoadGenTest test(system.dispatcher,
                          options_in(folder / "hung", "Offline", sut::LoadGenTest::Mode::kAccuracy));
    const fs::path log = folder / "hung" / "mlperf_log_accuracy.json";
    CHECK(mkfifo(log.c_str(), 0600) == 0);
    const int pipe = open(log.c_str(), O_RDONLY | O_NONBLOCK);
    CHECK(pipe >= 0 && fcntl(pipe, F_SETPIPE_SZ, 4096) > 0);
    test.start();
    while (system.dispatcher->stats().completed == 0 ||
           system.dispatcher->stats().completed < system.dispatcher->stats().issued)
      CHECK(!test.wait(0.01));
    CHECK(!test.wait(1));
    system.dispatcher->fail({"given_up", "", -1});
    CHECK(!test.wait(1));
    CHECK(system.dispatcher->stopped() && !test.finished() && !test.ended());
  }
  CHECK(system.dispatcher->failure()->code == "given_up");
}

// For a test after which LoadGen can run no other.
template <typename Test>
void in_a_child_process(Test test) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    test();
    _exit(0);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  replay_engine_path = argv[1];
  char name[] = "/tmp/loadgen_test.XXXXXX";
  const fs::path folder = mkdtemp(name);
  in_a_child_process([&] { a_test_without_a_log_folder_fails(folder); });
  in_a_child_process([&] { an_abort_that_never_returns_does_not_hold_its_caller(folder); });
  every_scenario_completes(folder);
  a_test_can_be_ended(folder);
  a_test_past_its_last_query_completes(folder);
  an_invalid_user_conf_is_refused(folder);
  a_dead_engine_ends_the_wait(folder);
  fs::remove_all(folder);
  std::fflush(nullptr);
  _exit(0);  // LoadGen's thread is still inside its test
}
