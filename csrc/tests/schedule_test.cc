// The schedule against LoadGen's own: the same samples in the same order, at the same times.
#include "../simulation/schedule.h"

#include <loadgen.h>
#include <query_sample_library.h>
#include <system_under_test.h>

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../loadgen_settings.h"
#include "check.h"

namespace {

namespace fs = std::filesystem;
using sut::Schedule;

// Answers at once and keeps the order of the samples.
class NullSystem : public mlperf::SystemUnderTest {
 public:
  const std::string& Name() override { return name_; }
  void IssueQuery(const std::vector<mlperf::QuerySample>& query) override {
    for (const mlperf::QuerySample& sample : query) {
      issued.push_back(static_cast<std::int64_t>(sample.index));
      mlperf::QuerySampleResponse response{sample.id, 0, 0, 1};
      mlperf::FirstTokenComplete(&response, 1);
      mlperf::QuerySamplesComplete(&response, 1);
    }
  }
  void FlushQueries() override {}

  std::vector<std::int64_t> issued;

 private:
  const std::string name_ = "null";
};

class Library : public mlperf::QuerySampleLibrary {
 public:
  explicit Library(std::size_t size) : size_(size) {}
  const std::string& Name() override { return name_; }
  std::size_t TotalSampleCount() override { return size_; }
  std::size_t PerformanceSampleCount() override { return size_; }
  void LoadSamplesToRam(const std::vector<mlperf::QuerySampleIndex>&) override {}
  void UnloadSamplesFromRam(const std::vector<mlperf::QuerySampleIndex>&) override {}

 private:
  const std::string name_ = "numbers";
  const std::size_t size_;
};

struct Case {
  std::string model;
  std::string scenario;
  std::string user_conf;
  std::size_t num_samples;
};

Schedule schedule_of(const Case& c) {
  return sut::make_schedule(c.model, c.scenario, c.user_conf, c.num_samples);
}

// LoadGen's trace has the scheduled time of each sample, in microseconds.
std::vector<double> scheduled_us(const fs::path& trace) {
  std::vector<double> times;
  std::ifstream lines(trace);
  for (std::string line; std::getline(lines, line);) {
    if (line.find("\"name\":\"Sample\",\"cat\":\"default\",\"ph\":\"b\"") == std::string::npos)
      continue;
    const std::size_t at = line.find("\"ts\":");
    const std::size_t sequence = line.find("\"sample_seq\":");
    CHECK(at != std::string::npos && sequence != std::string::npos);
    const auto index = static_cast<std::size_t>(std::atoll(line.c_str() + sequence + 13));
    if (times.size() <= index) times.resize(index + 1, -1);
    times[index] = std::atof(line.c_str() + at + 5);
  }
  return times;
}

void is_loadgens(const Case& c, const fs::path& folder) {
  const Schedule schedule = schedule_of(c);
  fs::create_directories(folder);
  mlperf::LogSettings logs;
  logs.log_output.outdir = folder.string();
  logs.enable_trace = true;
  NullSystem system;
  Library library(c.num_samples);
  mlperf::StartTest(&system, &library, sut::loadgen_settings(c.model, c.scenario, c.user_conf),
                    logs, "");
  CHECK(system.issued == schedule.sample_index);
  CHECK(schedule.size() > 0 && schedule.arrival_ns.front() == 0);
  const std::vector<double> us = scheduled_us(folder / "mlperf_log_trace.json");
  CHECK(us.size() == schedule.size());
  for (std::size_t i = 0; i < us.size(); ++i)
    CHECK(std::abs(us[i] - us[0] - static_cast<double>(schedule.arrival_ns[i]) * 1e-3) < 0.01);
}

// LoadGen may never return from a test. When a buffer of its log has grown, its logging thread logs
// that in the name of the thread whose buffer it is, beside that thread
// (TlsLogger::FinishReadingEntries), and a swap of buffers may be lost: what that thread logs from
// then on is never read. A trace fills the buffers fast enough. So each test has a process of its
// own, and one that does not end is repeated.
void is_loadgens_in_time(const Case& c, const fs::path& folder) {
  constexpr unsigned deadline_s = 20;
  constexpr int max_tries = 5;
  for (int i = 0; i < max_tries; ++i) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      alarm(deadline_s);
      is_loadgens(c, folder);
      _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
    std::fprintf(stderr, "%s %s: LoadGen did not return\n", c.model.c_str(), c.scenario.c_str());
  }
  CHECK(false && "LoadGen never returned");
}

void schedules_are_loadgens(const fs::path& folder) {
  const std::string server = "*.Server.target_latency = 0\n*.Server.min_duration = 200\n";
  const std::string fast = server + "*.Server.target_qps = 3000\n*.Server.min_query_count = 100\n";
  const std::string offline = "*.Offline.min_duration = 100\n*.Offline.min_query_count = 150\n";
  const Case cases[] = {
      // Samples drawn one by one; whole passes over the data, with and without a rest.
      {"test", "Server", fast, 70},
      {"llama3_1-8b", "Server", fast, 70},
      {"llama3_1-8b", "Server", fast + "*.Server.min_query_count = 900\n", 100},
      {"llama3_1-8b", "Server", fast + "*.Server.min_query_count = 2000\n", 300},
      {"llama3_1-8b-interactive", "Server", fast + "*.*.schedule_rng_seed = 5\n", 64},
      {"llama3_1-8b", "Server",
       fast + "*.*.qsl_rng_seed = 7\n*.*.sample_index_rng_seed = 8\n", 64},
      // Fewer samples than the data set has; ends before its time.
      {"llama3_1-8b", "Server", fast + "*.*.performance_sample_count_override = 40\n", 64},
      {"test", "Server", fast + "*.*.performance_sample_count_override = 40\n", 64},
      {"llama3_1-8b", "Server", fast + "*.*.max_query_count = 77\n", 64},
      {"llama3_1-8b", "Server", fast + "*.*.performance_issue_unique = 1\n", 64},
      {"llama3_1-8b", "Server",
       fast + "*.*.performance_issue_same = 1\n*.*.performance_issue_same_index = 3\n", 64},
      // By the rate, by the count, whole passes, and each sample once.
      {"test", "Offline", offline + "*.Offline.target_qps = 4000\n", 70},
      {"test", "Offline", offline + "*.Offline.target_qps = 1\n", 70},
      {"llama3_1-8b", "Offline", offline + "*.Offline.target_qps = 4000\n", 70},
      {"test", "Offline", offline + "*.*.performance_issue_unique = 1\n", 70},
      {"llama3_1-8b", "Offline",
       offline + "*.*.performance_issue_same = 1\n*.*.performance_issue_same_index = 3\n", 70},
  };
  for (std::size_t i = 0; i < std::size(cases); ++i)
    is_loadgens_in_time(cases[i], folder / std::to_string(i));
}

// At a rate of q the gaps are 1 / q of those at a rate of 1.
void arrivals_scale_with_the_rate() {
  const auto at = [](const std::string& qps) {
    return schedule_of({"llama3_1-8b", "Server",
                        "*.Server.target_qps = " + qps + "\n*.*.min_duration = 0\n", 1000});
  };
  const Schedule slow = at("1");
  const Schedule fast = at("8");
  CHECK(slow.size() == 1000 && slow.sample_index == fast.sample_index);
  for (std::size_t i = 0; i < slow.size(); ++i) {
    const auto num_gaps = static_cast<std::int64_t>(i);  // each rounded to 1 ns
    CHECK(std::abs(slow.arrival_ns[i] - 8 * fast.arrival_ns[i]) <= 8 * num_gaps);
  }
}

void a_max_duration_ends_the_schedule() {
  const std::string conf = "*.Server.target_qps = 10\n*.*.min_duration = 20000\n";
  const Schedule whole = schedule_of({"test", "Server", conf, 50});
  const Schedule part = schedule_of({"test", "Server", conf + "*.*.max_duration = 5000\n", 50});
  CHECK(part.size() < whole.size());
  CHECK(part.arrival_ns.back() > 5'000'000'000);
  CHECK(part.arrival_ns[part.size() - 2] <= 5'000'000'000);
}

void what_has_no_schedule_is_refused() {
  const std::string same = "*.*.performance_issue_same = 1\n";
  const Case cases[] = {
      {"test", "SingleStream", "", 10},
      {"test", "MultiStream", "", 10},
      {"test", "Server", "", 0},
      {"test", "Server", "*.Server.target_qps = 0\n", 10},
      {"test", "Server", "*.Server.target_qps = 1000000\n*.*.min_duration = 10000000\n", 10},
      {"test", "Server", "*.Server.target_qps = many\n", 10},
      {"test", "Offline", same + "*.*.performance_issue_unique = 1\n", 10},
      // More samples loaded than there are, each once: LoadGen generates no query, and crashes.
      {"llama3_1-8b", "Offline", "*.*.performance_issue_unique = 1\n", 70},
      {"test", "Offline", same + "*.*.performance_issue_same_index = 10\n", 10},
  };
  for (const Case& c : cases) {
    try {
      schedule_of(c);
      CHECK(false && "made a schedule");
    } catch (const std::invalid_argument&) {
    }
  }
}

}  // namespace

int main() {
  char name[] = "/tmp/schedule_test.XXXXXX";
  const fs::path folder = mkdtemp(name);
  schedules_are_loadgens(folder);
  arrivals_scale_with_the_rate();
  a_max_duration_ends_the_schedule();
  what_has_no_schedule_is_refused();
  fs::remove_all(folder);
  std::puts("schedule_test: passed");
}
