// LoadGen with a SUT that answers inside IssueQuery: LoadGen's own limit, an upper bound for all.
//
// Usage: null_sut SCENARIO USER_CONF LOG_DIR NUM_SAMPLES NUM_TOKENS
// Prints the CPU time of the test, in seconds.
#include <loadgen.h>
#include <query_sample_library.h>
#include <system_under_test.h>
#include <test_settings.h>

#include <cstdio>
#include <string>
#include <vector>

#include "cpu_time.h"

namespace {

class NullSut : public mlperf::SystemUnderTest {
 public:
  NullSut(bool first_tokens, std::size_t num_tokens)
      : first_tokens_(first_tokens), tokens_(num_tokens, 7) {}
  const std::string& Name() override { return name_; }
  void IssueQuery(const std::vector<mlperf::QuerySample>& query) override {
    for (const mlperf::QuerySample& sample : query) {
      mlperf::QuerySampleResponse response = answer(sample.id, 1);
      if (first_tokens_) mlperf::FirstTokenComplete(&response, 1);
      response = answer(sample.id, tokens_.size());
      mlperf::QuerySamplesComplete(&response, 1);
    }
  }
  void FlushQueries() override {}

 private:
  mlperf::QuerySampleResponse answer(mlperf::ResponseId id, std::size_t count) const {
    return {id, reinterpret_cast<std::uintptr_t>(tokens_.data()), count * sizeof(std::int32_t),
            static_cast<std::int64_t>(count)};
  }

  const std::string name_ = "null";
  const bool first_tokens_;
  const std::vector<std::int32_t> tokens_;
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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const std::string scenario = argv[1];
  mlperf::TestSettings settings;
  settings.scenario =
      scenario == "Server" ? mlperf::TestScenario::Server : mlperf::TestScenario::Offline;
  settings.FromConfig("", "bench", scenario, 0);
  settings.FromConfig(argv[2], "bench", scenario, 2);
  mlperf::LogSettings log_settings;
  log_settings.log_output.outdir = argv[3];
  log_settings.enable_trace = false;
  NullSut sut(scenario == "Server", std::stoul(argv[5]));
  Library library(std::stoul(argv[4]));
  const double before = cpu_s();
  mlperf::StartTest(&sut, &library, settings, log_settings, "");
  std::printf("%f\n", cpu_s() - before);
}
