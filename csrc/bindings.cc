// The one file that knows Python. Contracts stand in sut/_core.pyi.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <optional>

#include "dispatcher.h"
#include "generate.h"
#include "loadgen_test.h"
#include "replica_link.h"
#include "sample_store.h"
#include "stats.h"
#include "wire.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using ReleaseGil = py::call_guard<py::gil_scoped_release>;

// Destroying a dispatcher joins a thread and giving up a test may wait for LoadGen's logger:
// neither under the GIL. The last owner may be a thread that does not hold it.
template <typename T>
void destroy_without_gil(T* object) {
  std::optional<py::gil_scoped_release> release;
  if (PyGILState_Check()) release.emplace();
  delete object;
}

template <typename T, typename... Args>
std::shared_ptr<T> make_shared_without_gil(Args&&... args) {
  return {new T(std::forward<Args>(args)...), destroy_without_gil<T>};
}

std::map<std::string, std::int64_t> as_map(const sut::Quantiles& quantiles) {
  return {quantiles.begin(), quantiles.end()};
}

// A column of int64 that Python reads in place, with no library to import.
py::memoryview as_memoryview(const std::vector<std::int64_t>& column) {
  const py::bytes bytes(reinterpret_cast<const char*>(column.data()), 8 * column.size());
  return py::memoryview(bytes).attr("cast")("q");
}

std::pair<std::string, int> host_and_port(const std::string& endpoint) {
  const std::string scheme = "tcp://";
  const std::size_t colon = endpoint.rfind(':');
  return {endpoint.substr(scheme.size(), colon - scheme.size()),
          std::stoi(endpoint.substr(colon + 1))};
}

sut::LoadGenTest::Mode mode_of(const std::string& mode) {
  if (mode == "performance") return sut::LoadGenTest::Mode::kPerformance;
  if (mode == "accuracy") return sut::LoadGenTest::Mode::kAccuracy;
  throw std::invalid_argument("unknown mode '" + mode + "'; valid are performance and accuracy");
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "LoadGen and the dispatcher, in C++.";
  m.attr("LOADGEN_VERSION") = SUT_LOADGEN_VERSION;

  py::class_<sut::WireLayout>(m, "WireLayout")
      .def(py::init([](std::uint32_t outputs, std::uint32_t scheduler_stats,
                       std::uint32_t request_id, std::uint32_t new_token_ids,
                       std::uint32_t finish_reason, std::string running_key,
                       std::string waiting_key, std::string kv_cache_usage_key) {
             return sut::WireLayout{outputs,
                                    scheduler_stats,
                                    request_id,
                                    new_token_ids,
                                    finish_reason,
                                    std::move(running_key),
                                    std::move(waiting_key),
                                    std::move(kv_cache_usage_key)};
           }),
           py::kw_only(), "outputs"_a, "scheduler_stats"_a, "request_id"_a, "new_token_ids"_a,
           "finish_reason"_a, "running_key"_a, "waiting_key"_a, "kv_cache_usage_key"_a);

  py::class_<sut::SampleStore, std::shared_ptr<sut::SampleStore>>(m, "SampleStore")
      .def(py::init<>())
      .def(
          "add",
          [](sut::SampleStore& store, const py::bytes& request, std::size_t id_offset,
             std::uint32_t num_prompt_tokens) {
            store.add(std::string_view(request), id_offset, num_prompt_tokens);
          },
          "request"_a, "id_offset"_a, "num_prompt_tokens"_a)
      .def("__len__", &sut::SampleStore::size)
      .def_property_readonly("num_bytes", &sut::SampleStore::num_bytes);

  py::class_<sut::Failure>(m, "Failure")
      .def_readonly("code", &sut::Failure::code)
      .def_readonly("message", &sut::Failure::message)
      .def_readonly("replica", &sut::Failure::replica);

  py::class_<sut::ReplicaSnapshot>(m, "ReplicaStats")
      .def_readonly("index", &sut::ReplicaSnapshot::index)
      .def_readonly("in_flight", &sut::ReplicaSnapshot::in_flight)
      .def_readonly("admitted", &sut::ReplicaSnapshot::admitted)
      .def_readonly("completed", &sut::ReplicaSnapshot::completed)
      .def_readonly("prompt_tokens", &sut::ReplicaSnapshot::prompt_tokens)
      .def_readonly("output_tokens", &sut::ReplicaSnapshot::output_tokens)
      .def_readonly("busy_ns", &sut::ReplicaSnapshot::busy_ns)
      .def_readonly("running", &sut::ReplicaSnapshot::running)
      .def_readonly("waiting", &sut::ReplicaSnapshot::waiting)
      .def_readonly("kv_cache_usage", &sut::ReplicaSnapshot::kv_cache_usage);

  py::class_<sut::Snapshot>(m, "Stats")
      .def_readonly("elapsed_ns", &sut::Snapshot::elapsed_ns)
      .def_readonly("issued", &sut::Snapshot::issued)
      .def_readonly("queued", &sut::Snapshot::queued)
      .def_readonly("admitted", &sut::Snapshot::admitted)
      .def_readonly("first_tokens", &sut::Snapshot::first_tokens)
      .def_readonly("completed", &sut::Snapshot::completed)
      .def_readonly("failed", &sut::Snapshot::failed)
      .def_readonly("prompt_tokens", &sut::Snapshot::prompt_tokens)
      .def_readonly("output_tokens", &sut::Snapshot::output_tokens)
      .def_property_readonly("ttft_ns", [](const sut::Snapshot& s) { return as_map(s.ttft_ns); })
      .def_property_readonly("tpot_ns", [](const sut::Snapshot& s) { return as_map(s.tpot_ns); })
      .def_readonly("replicas", &sut::Snapshot::replicas);

  py::class_<sut::ReplicaLinks, std::shared_ptr<sut::ReplicaLinks>>(m, "ReplicaLinks")
      .def(py::init<const std::string&, int>(), py::kw_only(), "host"_a, "num_replicas"_a)
      .def("handshake_address",
           [](const sut::ReplicaLinks& links, int replica) {
             return host_and_port(links.handshake_endpoint(replica));
           },
           "replica"_a);

  py::class_<sut::Dispatcher, std::shared_ptr<sut::Dispatcher>>(m, "Dispatcher")
      .def(py::init([](std::shared_ptr<sut::ReplicaLinks> links,
                       std::shared_ptr<sut::SampleStore> store, const sut::WireLayout& layout,
                       std::size_t max_output_tokens, double sample_deadline_s,
                       double stall_deadline_s) {
             store->seal();
             return make_shared_without_gil<sut::Dispatcher>(
                 std::move(links), std::move(store), layout,
                 sut::Dispatcher::Options{max_output_tokens, sample_deadline_s, stall_deadline_s});
           }),
           "links"_a.none(false), "store"_a.none(false), "layout"_a, py::kw_only(),
           "max_output_tokens"_a, "sample_deadline_s"_a, "stall_deadline_s"_a)
      .def("wait_ready", &sut::Dispatcher::wait_ready, "timeout_s"_a, ReleaseGil())
      .def("ready_response",
           [](const sut::Dispatcher& dispatcher, int replica) -> std::optional<py::bytes> {
             const auto response = dispatcher.ready_response(replica);
             return response ? std::optional<py::bytes>(*response) : std::nullopt;
           },
           "replica"_a)
      .def("set_credit", &sut::Dispatcher::set_credit, "replica"_a, "max_in_flight"_a,
           ReleaseGil())
      .def("generate", &sut::generate, "samples"_a, "replica"_a, "timeout_s"_a, ReleaseGil())
      .def("fail",
           [](sut::Dispatcher& dispatcher, std::string code, std::string message, int replica) {
             dispatcher.fail({std::move(code), std::move(message), replica});
           },
           "code"_a, "message"_a, "replica"_a = -1, ReleaseGil())
      .def_property_readonly("failure", py::cpp_function(&sut::Dispatcher::failure, ReleaseGil()))
      .def("stats", &sut::Dispatcher::stats, ReleaseGil())
      .def("samples",
           [](const sut::Dispatcher& dispatcher) {
             sut::SampleColumns columns;
             {
               const py::gil_scoped_release release;
               columns = dispatcher.samples();
             }
             return py::dict("sample_index"_a = as_memoryview(columns.sample_index),
                             "replica"_a = as_memoryview(columns.replica),
                             "prompt_tokens"_a = as_memoryview(columns.prompt_tokens),
                             "output_tokens"_a = as_memoryview(columns.output_tokens),
                             "issued_ns"_a = as_memoryview(columns.issued_ns),
                             "admitted_ns"_a = as_memoryview(columns.admitted_ns),
                             "first_token_ns"_a = as_memoryview(columns.first_token_ns),
                             "completed_ns"_a = as_memoryview(columns.completed_ns));
           })
      .def("num_over", &sut::Dispatcher::num_over, py::kw_only(), "ttft_ns"_a, "tpot_ns"_a,
           ReleaseGil())
      .def("reset_stats", &sut::Dispatcher::reset_stats, ReleaseGil())
      .def("close", &sut::Dispatcher::close, ReleaseGil());

  py::class_<sut::LoadGenTest, std::shared_ptr<sut::LoadGenTest>>(m, "LoadGenTest")
      .def(py::init([](std::shared_ptr<sut::Dispatcher> dispatcher, std::string model,
                       std::string scenario, const std::string& mode, std::string user_conf,
                       std::string audit_conf, std::string log_dir, std::string sut_name,
                       std::string qsl_name) {
             return make_shared_without_gil<sut::LoadGenTest>(
                 std::move(dispatcher),
                 sut::LoadGenTest::Options{std::move(model), std::move(scenario), mode_of(mode),
                                           std::move(user_conf), std::move(audit_conf),
                                           std::move(log_dir), std::move(sut_name),
                                           std::move(qsl_name)});
           }),
           "dispatcher"_a.none(false), py::kw_only(), "model"_a, "scenario"_a, "mode"_a,
           "user_conf"_a, "audit_conf"_a, "log_dir"_a, "sut_name"_a, "qsl_name"_a)
      .def_property_readonly("limits_ns", &sut::LoadGenTest::limits_ns)
      .def("start", &sut::LoadGenTest::start, ReleaseGil())
      .def("wait", &sut::LoadGenTest::wait, "timeout_s"_a, ReleaseGil())
      .def_property_readonly("finished",
                             py::cpp_function(&sut::LoadGenTest::finished, ReleaseGil()));
}
