#include "loadgen_settings.h"

#include <stdexcept>

#include "sealed_file.h"

namespace sut {
namespace {

mlperf::TestScenario scenario_of(const std::string& name) {
  if (name == "Server") return mlperf::TestScenario::Server;
  if (name == "Offline") return mlperf::TestScenario::Offline;
  if (name == "SingleStream") return mlperf::TestScenario::SingleStream;
  throw std::invalid_argument("unknown scenario '" + name +
                              "': expected Server, Offline or SingleStream");
}

}  // namespace

mlperf::TestSettings loadgen_settings(const std::string& model, const std::string& scenario,
                                      const std::string& user_conf) {
  // FromConfig's conf types: 0 is the mlperf.conf built into LoadGen, 2 a user.conf on top of it.
  // Type 1 works only once in a process.
  constexpr int kMlperfConf = 0;
  constexpr int kUserConf = 2;
  mlperf::TestSettings settings;
  settings.scenario = scenario_of(scenario);
  if (settings.FromConfig("", model, scenario, kMlperfConf) != 0)
    throw std::invalid_argument("LoadGen cannot read its built-in mlperf.conf");
  const SealedFile file(user_conf);
  if (settings.FromConfig(file.path(), model, scenario, kUserConf) != 0)
    throw std::invalid_argument("LoadGen rejects the settings:\n" + user_conf);
  settings.mode = mlperf::TestMode::PerformanceOnly;
  return settings;
}

}  // namespace sut
