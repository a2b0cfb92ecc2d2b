#include "report.h"

#include <cstdio>
#include <fstream>
#include <stdexcept>

namespace replay {

void write_report(const Limits& limits, const std::string& version, const std::string& path) {
  const std::string temporary = path + ".part";
  std::ofstream file(temporary);
  file << R"({"engine": "replay )" << version << R"(", "changed": {}, "settings": {)"
       << R"("model_config.max_model_len": )" << limits.max_model_len
       << R"(, "scheduler_config.max_num_seqs": )" << limits.max_num_seqs
       << R"(, "scheduler_config.max_num_batched_tokens": )" << limits.max_num_batched_tokens
       << R"(, "cache_config.enable_prefix_caching": false, "cache_config.kv_offloading_size": null)"
       << R"(, "speculative_config": null, "kv_transfer_config": null}})" << "\n";
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0)
    throw std::runtime_error("cannot write " + path);
}

}  // namespace replay
