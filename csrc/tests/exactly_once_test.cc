// Whatever happens to the replicas, and whichever return: each sample that is issued, by LoadGen or directly, completes
// once, with its whole answer, after one report of its first token, on one thread.
//
// A seed decides a schedule: the replicas, what happens to each of them and when, and the work.
// Arguments: REPLAY_ENGINE, then nothing for some short schedules, `SEED` for one to repeat a
// failure, or `SEED SECONDS SAMPLES` for schedules with so many samples each, one after the other.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <random>
#include <string>

#include "fault_schedule.h"

namespace {

void run_schedule(unsigned seed, int num_samples, Tally& tally) {
  std::printf("seed %u; to repeat it: exactly_once_test REPLAY_ENGINE %u\n", seed, seed);
  std::fflush(stdout);
  char name[] = "/tmp/exactly_once.XXXXXX";
  const fs::path folder = mkdtemp(name);
  Schedule(seed, num_samples, folder, tally).run();
  fs::remove_all(folder);
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2 || argc == 3 || argc == 5);
  replay_engine_path = argv[1];
  constexpr int kFew = 4'000;
  Tally tally;
  auto seed = argc > 2 ? static_cast<unsigned>(std::stoul(argv[2])) : std::random_device{}();
  if (argc == 5) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::stol(argv[3]));
    do {
      run_schedule(seed++, std::stoi(argv[4]), tally);
    } while (std::chrono::steady_clock::now() < end);
  } else if (argc == 3) {
    run_schedule(seed, kFew, tally);
  } else {
    for (unsigned fixed = 1; fixed <= 3; ++fixed) run_schedule(fixed, kFew, tally);
    run_schedule(seed, kFew, tally);
  }
  std::printf("%lld schedules: %lld samples completed once, %lld of them issued by LoadGen; "
              "%lld withdrawn, %lld dropped by a failure; %lld replicas lost, %lld "
              "returned, %lld samples restarted\n",
              static_cast<long long>(tally.schedules), static_cast<long long>(tally.samples),
              static_cast<long long>(tally.by_loadgen), static_cast<long long>(tally.withdrawn),
              static_cast<long long>(tally.dropped), static_cast<long long>(tally.losses),
              static_cast<long long>(tally.rejoined),
              static_cast<long long>(tally.restarted));
}
