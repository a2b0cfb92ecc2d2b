#include "loadgen_test.h"

#include <loadgen.h>
#include <logging.h>
#include <query_sample_library.h>
#include <system_under_test.h>
#include <test_settings.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "clock.h"
#include "loadgen_settings.h"
#include "sealed_file.h"

namespace sut {
namespace {

constexpr double kAbandonS = 5;  // for LoadGen to flush its logs

mlperf::TestSettings settings_of(const LoadGenTest::Options& options) {
  mlperf::TestSettings settings =
      loadgen_settings(options.model, options.scenario, options.user_conf);
  if (options.mode == LoadGenTest::Mode::kAccuracy)
    settings.mode = mlperf::TestMode::AccuracyOnly;
  return settings;
}

// LoadGen's view of the samples, all of which are encoded in memory before the test starts.
class Library : public mlperf::QuerySampleLibrary {
 public:
  Library(std::string name, std::size_t size) : name_(std::move(name)), size_(size) {}

  const std::string& Name() override { return name_; }
  std::size_t TotalSampleCount() override { return size_; }
  std::size_t PerformanceSampleCount() override { return size_; }
  void LoadSamplesToRam(const std::vector<mlperf::QuerySampleIndex>&) override {
    enter(Stage::kMeasuring);
  }
  void UnloadSamplesFromRam(const std::vector<mlperf::QuerySampleIndex>&) override {
    enter(Stage::kEnding);
  }

  void begin_ending() { enter(Stage::kEnding); }
  void finish() { enter(Stage::kFinished); }
  void end() { enter(Stage::kEnded); }

  // Whether LoadGen has asked for samples.
  bool measured() const {
    std::lock_guard lock(mutex_);
    return stage_ != Stage::kStarting;
  }

  // For a StartTest that returned without a test: abort() then does not call LoadGen.
  void abandon() {
    std::lock_guard lock(mutex_);
    abandoned_ = true;
  }

  bool finished() const {
    std::lock_guard lock(mutex_);
    return stage_ == Stage::kFinished;
  }

  bool ended() const {
    std::lock_guard lock(mutex_);
    return stage_ == Stage::kEnded;
  }

  // Whether StartTest was left.
  bool over() const { return finished() || ended(); }

  // Abandons the test and flushes LoadGen's logs, or waits for the end of a test that is past its
  // last sample. AbortTest and the end of StartTest both stop LoadGen's logger, and only one of
  // them may, so LoadGen blocks at its next stage once the test is abandoned. Blocks for ever where
  // LoadGen does: never call it with a lock, nor on a thread that must go on.
  void abort() {
    {
      std::unique_lock lock(mutex_);
      if (abandoned_) return;
      changed_.wait(lock, [this] { return stage_ != Stage::kEnding; });
      if (stage_ == Stage::kFinished || stage_ == Stage::kEnded) return;
      abandoned_ = true;
      if (stage_ != Stage::kMeasuring) return;
    }
    mlperf::AbortTest();
  }

 private:
  enum class Stage { kStarting, kMeasuring, kEnding, kFinished, kEnded };

  void enter(Stage stage) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !abandoned_; });  // forever, once abandoned
    stage_ = stage;
    changed_.notify_all();
  }

  const std::string name_;
  const std::size_t size_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Stage stage_ = Stage::kStarting;
  bool abandoned_ = false;
};

// Thrown through LoadGen's issuing loop: it has no other way out before its last query.
struct Ended {};

class SystemUnderTest : public mlperf::SystemUnderTest, private ResponseSink {
 public:
  SystemUnderTest(std::string name, std::shared_ptr<Dispatcher> dispatcher, Library& library,
                  bool first_tokens)
      : name_(std::move(name)),
        dispatcher_(std::move(dispatcher)),
        library_(library),
        first_tokens_(first_tokens) {}

  void end() { ending_.store(true); }

  const std::string& Name() override { return name_; }

  // On LoadGen's one issuing thread.
  void IssueQuery(const std::vector<mlperf::QuerySample>& query) override {
    if (ending_.load() && drained()) leave();
    samples_.clear();
    for (const mlperf::QuerySample& sample : query) samples_.push_back({sample.id, sample.index});
    try {
      dispatcher_->issue(samples_, *this);
    } catch (const std::exception& error) {
      dispatcher_->fail({"loadgen_error", error.what(), -1});
    }
  }
  void FlushQueries() override {}

 private:
  // LoadGen requires both events of a sample from one thread, and takes the time in these calls.
  void on_first_token(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
    if (!first_tokens_) return;
    mlperf::QuerySampleResponse response = response_of(id, tokens);
    mlperf::FirstTokenComplete(&response, 1);
  }
  void on_complete(std::uintptr_t id, std::span<const std::int32_t> tokens) override {
    mlperf::QuerySampleResponse response = response_of(id, tokens);
    num_completed_.fetch_add(1);
    // After a test's last one this object may be gone.
    mlperf::QuerySamplesComplete(&response, 1);
  }

  // Withdraws what is queued and waits for what is in flight. False after a failure.
  bool drained() {
    dispatcher_->withdraw_queued();
    while (!dispatcher_->is_drained()) {
      if (dispatcher_->stopped()) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

  // Ends the test, with nothing in flight. The queries and the log files live on StartTest's stack,
  // and entries in LoadGen's logger refer to both: the logger must be empty and closed before
  // that stack goes. It also has to forget the latencies, as at the end of a complete test.
  [[noreturn]] void leave() {
    auto& logger = mlperf::logging::GlobalLogger();
    const auto count = static_cast<std::size_t>(num_completed_.load());
    logger.GetLatenciesBlocking(count);
    logger.GetTokenLatencies(count);
    logger.GetTimePerOutputToken(count);
    logger.GetTokensPerSample(count);
    library_.begin_ending();
    mlperf::AbortTest();
    throw Ended{};
  }

  static mlperf::QuerySampleResponse response_of(std::uintptr_t id,
                                                 std::span<const std::int32_t> tokens) {
    return {id, reinterpret_cast<std::uintptr_t>(tokens.data()), tokens.size_bytes(),
            static_cast<std::int64_t>(tokens.size())};
  }

  const std::string name_;
  const std::shared_ptr<Dispatcher> dispatcher_;
  Library& library_;
  const bool first_tokens_;  // false for Offline
  std::atomic<bool> ending_{false};
  std::atomic<std::int64_t> num_completed_{0};
  std::vector<Sample> samples_;
};

}  // namespace

struct LoadGenTest::Session {
  Session(std::shared_ptr<Dispatcher> dispatcher_in, const Options& options)
      : dispatcher(std::move(dispatcher_in)),
        settings(settings_of(options)),
        audit_conf(options.audit_conf.empty() ? nullptr
                                              : std::make_unique<SealedFile>(options.audit_conf)),
        library(options.qsl_name, dispatcher->store().size()),
        system(options.sut_name, dispatcher, library,
               settings.scenario != mlperf::TestScenario::Offline) {
    log_settings.log_output.outdir = options.log_dir;
    log_settings.enable_trace = false;
  }

  void run() {
    try {
      mlperf::StartTest(&system, &library, settings, log_settings,
                        audit_conf ? audit_conf->path() : "");
    } catch (const Ended&) {
      library.end();
      dispatcher->notify();
      return;
    } catch (const std::exception& error) {
      return abandon(error.what());
    }
    // StartTest returns at once, with a message on standard error, if it cannot open a log.
    if (!library.measured())
      return abandon("LoadGen ran no test; check that its log folder is writable: " +
                     log_settings.log_output.outdir);
    library.finish();
    dispatcher->notify();
  }

  // Aborts the test, which may never return, on a thread of its own. Returns whether it has been
  // aborted within `timeout_s`.
  static bool abort(const std::shared_ptr<Session>& session, double timeout_s) {
    std::unique_lock lock(session->abort_mutex);
    if (!session->aborting) {
      session->aborting = true;
      std::thread([session] {
        session->library.abort();
        std::lock_guard done(session->abort_mutex);
        session->aborted = true;
        session->abort_changed.notify_all();
      }).detach();
    }
    return session->abort_changed.wait_for(lock, std::chrono::duration<double>(timeout_s),
                                           [&] { return session->aborted; });
  }

  void abandon(std::string why) {
    library.abandon();
    dispatcher->fail({"loadgen_error", std::move(why), -1});
  }

  const std::shared_ptr<Dispatcher> dispatcher;
  const mlperf::TestSettings settings;
  mlperf::LogSettings log_settings;
  const std::unique_ptr<SealedFile> audit_conf;
  Library library;
  SystemUnderTest system;

  std::mutex abort_mutex;
  std::condition_variable abort_changed;
  bool aborting = false;
  bool aborted = false;
};

LoadGenTest::LoadGenTest(std::shared_ptr<Dispatcher> dispatcher, const Options& options)
    : session_(std::make_shared<Session>(std::move(dispatcher), options)) {}

LoadGenTest::~LoadGenTest() {
  if (!thread_.joinable()) return;
  if (!session_->library.over()) {
    session_->dispatcher->fail({"test_abandoned", "LoadGen's test was abandoned", -1});
    Session::abort(session_, kAbandonS);
  }
  if (session_->library.over())
    thread_.join();
  else
    thread_.detach();
}

std::optional<std::pair<std::int64_t, std::int64_t>> LoadGenTest::limits_ns() const {
  const mlperf::TestSettings& settings = session_->settings;
  if (settings.scenario != mlperf::TestScenario::Server || !settings.use_token_latencies ||
      settings.mode != mlperf::TestMode::PerformanceOnly)
    return std::nullopt;
  return std::pair(static_cast<std::int64_t>(settings.server_ttft_latency),
                   static_cast<std::int64_t>(settings.server_tpot_latency));
}

void LoadGenTest::start() {
  if (thread_.joinable()) throw std::logic_error("a LoadGenTest can start only once");
  thread_ = std::thread([session = session_] { session->run(); });
}

bool LoadGenTest::wait(double timeout_s) {
  const Library& library = session_->library;
  const std::int64_t begin = now_ns();
  session_->dispatcher->wait([&] { return library.over(); }, timeout_s);
  if (library.over()) return true;
  if (!session_->dispatcher->stopped()) return false;
  return Session::abort(session_, timeout_s - static_cast<double>(now_ns() - begin) / 1e9);
}

void LoadGenTest::end() { session_->system.end(); }

bool LoadGenTest::ended() const { return session_->library.ended(); }

bool LoadGenTest::finished() const { return session_->library.finished(); }

}  // namespace sut
