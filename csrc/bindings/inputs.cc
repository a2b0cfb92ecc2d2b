#include <array>
#include <string>

#include "bindings.h"
#include "replica_link.h"
#include "sample_store.h"
#include "wire.h"

namespace bindings {
namespace {

using namespace pybind11::literals;

std::pair<std::string, int> host_and_port(const std::string& endpoint) {
  const std::string scheme = "tcp://";
  const std::size_t colon = endpoint.rfind(':');
  return {endpoint.substr(scheme.size(), colon - scheme.size()),
          std::stoi(endpoint.substr(colon + 1))};
}

void register_wire_layout(py::module_& m) {
  py::class_<sut::WireLayout>(m, "WireLayout")
      .def(py::init([](std::uint32_t outputs, std::uint32_t scheduler_stats,
                       std::uint32_t timestamp, std::uint32_t request_id,
                       std::uint32_t new_token_ids, std::uint32_t finish_reason,
                       std::uint32_t prefill_stats,
                       std::string running_key, std::string waiting_key,
                       std::string kv_cache_usage_key) {
             return sut::WireLayout{outputs,
                                    scheduler_stats,
                                    timestamp,
                                    request_id,
                                    new_token_ids,
                                    finish_reason,
                                    prefill_stats,
                                    std::move(running_key),
                                    std::move(waiting_key),
                                    std::move(kv_cache_usage_key)};
           }),
           py::kw_only(), "outputs"_a, "scheduler_stats"_a, "timestamp"_a, "request_id"_a,
           "new_token_ids"_a, "finish_reason"_a, "prefill_stats"_a, "running_key"_a, "waiting_key"_a,
           "kv_cache_usage_key"_a);
}

void register_sample_store(py::module_& m) {
  using sut::SampleStore;
  py::class_<SampleStore, std::shared_ptr<SampleStore>>(m, "SampleStore")
      .def(py::init<>())
      .def("add",
           [](SampleStore& store, const py::bytes& request, std::size_t id_offset,
              std::uint32_t num_prompt_tokens) {
             store.add(std::string_view(request), id_offset, num_prompt_tokens);
           },
           "request"_a, "id_offset"_a, "num_prompt_tokens"_a)
      .def("__len__", &SampleStore::size)
      .def_property_readonly("num_bytes", &SampleStore::num_bytes);
}

void register_replica_links(py::module_& m) {
  using sut::ReplicaLinks;
  py::register_exception<sut::LimitError>(m, "LimitError");
  py::class_<ReplicaLinks, std::shared_ptr<ReplicaLinks>>(m, "ReplicaLinks")
      .def(py::init([](const std::string& host, std::string secret_key,
                       std::vector<std::string> engine_keys, std::size_t max_output_bytes,
                       const std::vector<std::array<int, 3>>& ports) {
             std::vector<sut::ReplicaPorts> of_replicas;
             for (const auto& [handshake, input, output] : ports)
               of_replicas.push_back({handshake, input, output});
             return std::make_shared<ReplicaLinks>(
                 host, sut::FrontEndKeys{std::move(secret_key), std::move(engine_keys)},
                 max_output_bytes, of_replicas);
           }),
           py::kw_only(), "host"_a, "secret_key"_a, "engine_keys"_a, "max_output_bytes"_a,
           "ports"_a = std::vector<std::array<int, 3>>{})
      .def("adopt",
           [](ReplicaLinks& links, int replica, const py::bytes& ready_response) {
             links.adopt(replica, std::string(ready_response));
           },
           "replica"_a, "ready_response"_a)
      .def("handshake_address",
           [](const ReplicaLinks& links, int replica) {
             return host_and_port(links.handshake_endpoint(replica));
           },
           "replica"_a)
      .def("endpoints",
           [](const ReplicaLinks& links, int replica) {
             const sut::LinkEndpoints& at = links.endpoints(replica);
             return std::array{at.handshake, at.input, at.output};
           },
           "replica"_a);
}

}  // namespace

void add_inputs(py::module_& m) {
  register_wire_layout(m);
  register_sample_store(m);
  register_replica_links(m);
}

}  // namespace bindings
