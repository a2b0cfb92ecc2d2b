// Runs a fuzz target without libFuzzer: on each file of a folder, then on random changes of them.
// Arguments: FOLDER [SEED]; the seed that was printed repeats a failure.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "../tests/check.h"
#include "fuzz.h"

namespace {

using Random = std::mt19937;

void run(const std::string& bytes) {
  // Of the exact size: a read past the end is one past an allocation.
  const std::vector<std::uint8_t> input(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(input.data(), input.size());
}

void change(std::string& bytes, const std::string& other, Random& random) {
  const auto below = [&](std::size_t end) { return random() % std::max<std::size_t>(end, 1); };
  const std::size_t at = below(bytes.size());
  switch (random() % 5) {
    case 0:
      bytes.resize(at);
      break;
    case 1:
      bytes.insert(at, 1, static_cast<char>(random() & 0xff));
      break;
    case 2:
      bytes.replace(at, below(8), other.substr(below(other.size()), below(16)));
      break;
    default:
      if (!bytes.empty()) bytes[at] = static_cast<char>(random() & 0xff);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2 || argc == 3);
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1]))
    paths.push_back(entry.path());
  CHECK(!paths.empty());
  std::ranges::sort(paths);

  std::vector<std::string> inputs;
  for (const auto& path : paths) {
    std::printf("%s\n", path.c_str());
    std::fflush(stdout);
    std::ifstream file(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    run(inputs.back());
  }

  const unsigned seed =
      argc == 3 ? static_cast<unsigned>(std::stoul(argv[2])) : std::random_device{}();
  std::printf("seed %u\n", seed);
  std::fflush(stdout);
  Random random(seed);
  for (int round = 0; round < FUZZ_ROUNDS; ++round) {
    std::string bytes = inputs[random() % inputs.size()];
    for (unsigned n = 1 + random() % 4; n > 0; --n)
      change(bytes, inputs[random() % inputs.size()], random);
    run(bytes);
  }
}
