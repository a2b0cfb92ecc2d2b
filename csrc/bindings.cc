// The only file that includes pybind11. Contracts are in sut/_core.pyi.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "curve.h"
#include "dispatcher.h"
#include "generate.h"
#include "loadgen_test.h"
#include "simulation/schedule.h"
#include "simulation/simulation.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using ReleaseGil = py::call_guard<py::gil_scoped_release>;

// Destroying a dispatcher joins a thread, and abandoning a test may wait for LoadGen's logger:
// neither may hold the GIL. The last owner may be a thread without it.
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

// A column of int64 that Python reads in place, without numpy.
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
  throw std::invalid_argument("unknown mode '" + mode + "': expected performance or accuracy");
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

void register_failure(py::module_& m) {
  using sut::Failure;
  py::class_<Failure>(m, "Failure")
      .def_readonly("code", &Failure::code)
      .def_readonly("message", &Failure::message)
      .def_readonly("replica", &Failure::replica);
  py::class_<sut::ReplicaLoss>(m, "ReplicaLoss")
      .def_readonly("why", &sut::ReplicaLoss::why)
      .def_readonly("lost_ns", &sut::ReplicaLoss::lost_ns)
      .def_readonly("samples_restarted", &sut::ReplicaLoss::samples_restarted)
      .def_readonly("tokens_lost", &sut::ReplicaLoss::tokens_lost);
}

void register_replica_stats(py::module_& m) {
  using sut::Shortcuts;
  py::class_<Shortcuts>(m, "Shortcuts")
      .def_readonly("num_prefills", &Shortcuts::num_prefills)
      .def_readonly("num_stats", &Shortcuts::num_stats)
      .def_readonly("cached_tokens", &Shortcuts::cached_tokens)
      .def_readonly("cache_hits", &Shortcuts::cache_hits)
      .def_readonly("draft_tokens", &Shortcuts::draft_tokens);
  using sut::ReplicaSnapshot;
  py::class_<ReplicaSnapshot>(m, "ReplicaStats")
      .def_readonly("index", &ReplicaSnapshot::index)
      .def_readonly("in_flight", &ReplicaSnapshot::in_flight)
      .def_readonly("admitted", &ReplicaSnapshot::admitted)
      .def_readonly("completed", &ReplicaSnapshot::completed)
      .def_readonly("prompt_tokens", &ReplicaSnapshot::prompt_tokens)
      .def_readonly("output_tokens", &ReplicaSnapshot::output_tokens)
      .def_readonly("busy_ns", &ReplicaSnapshot::busy_ns)
      .def_readonly("running", &ReplicaSnapshot::running)
      .def_readonly("waiting", &ReplicaSnapshot::waiting)
      .def_readonly("kv_cache_usage", &ReplicaSnapshot::kv_cache_usage)
      .def_readonly("shortcuts", &ReplicaSnapshot::shortcuts);
}

void register_stats(py::module_& m) {
  using sut::Snapshot;
  py::class_<Snapshot>(m, "Stats")
      .def_readonly("elapsed_ns", &Snapshot::elapsed_ns)
      .def_readonly("issued", &Snapshot::issued)
      .def_readonly("queued", &Snapshot::queued)
      .def_readonly("withdrawn", &Snapshot::withdrawn)
      .def_readonly("admitted", &Snapshot::admitted)
      .def_readonly("first_tokens", &Snapshot::first_tokens)
      .def_readonly("completed", &Snapshot::completed)
      .def_readonly("failed", &Snapshot::failed)
      .def_readonly("prompt_tokens", &Snapshot::prompt_tokens)
      .def_readonly("output_tokens", &Snapshot::output_tokens)
      .def_property_readonly("ttft_ns", [](const Snapshot& s) { return as_map(s.ttft_ns); })
      .def_property_readonly("tpot_ns", [](const Snapshot& s) { return as_map(s.tpot_ns); })
      .def_readonly("replicas", &Snapshot::replicas);
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

py::dict as_dict(const sut::SampleColumns& columns) {
  return py::dict("sample_index"_a = as_memoryview(columns.sample_index),
                  "replica"_a = as_memoryview(columns.replica),
                  "prompt_tokens"_a = as_memoryview(columns.prompt_tokens),
                  "output_tokens"_a = as_memoryview(columns.output_tokens),
                  "issued_ns"_a = as_memoryview(columns.issued_ns),
                  "admitted_ns"_a = as_memoryview(columns.admitted_ns),
                  "first_token_ns"_a = as_memoryview(columns.first_token_ns),
                  "completed_ns"_a = as_memoryview(columns.completed_ns));
}

py::dict samples_of(const sut::Dispatcher& dispatcher) {
  sut::SampleColumns columns;
  {
    const py::gil_scoped_release release;
    columns = dispatcher.samples();
  }
  return as_dict(columns);
}

py::dict steps_of(const sut::Dispatcher& dispatcher) {
  sut::StepLogColumns columns;
  {
    const py::gil_scoped_release release;
    columns = dispatcher.steps();
  }
  return py::dict("replica"_a = as_memoryview(columns.replica),
                  "num_decoding"_a = as_memoryview(columns.num_decoding),
                  "num_prompts"_a = as_memoryview(columns.num_prompts),
                  "prompt_tokens"_a = as_memoryview(columns.prompt_tokens),
                  "context_tokens"_a = as_memoryview(columns.context_tokens),
                  "received_ns"_a = as_memoryview(columns.received_ns),
                  "engine_ns"_a = as_memoryview(columns.engine_ns));
}

void register_dispatcher(py::module_& m) {
  using sut::Dispatcher;
  py::class_<Dispatcher, std::shared_ptr<Dispatcher>>(m, "Dispatcher")
      .def(py::init([](std::shared_ptr<sut::ReplicaLinks> links,
                       std::shared_ptr<sut::SampleStore> store, const sut::WireLayout& layout,
                       std::size_t max_output_tokens, double sample_deadline_s,
                       double stall_deadline_s, std::uint32_t first_use) {
             store->seal();
             return make_shared_without_gil<Dispatcher>(
                 std::move(links), std::move(store), layout,
                 Dispatcher::Options{max_output_tokens, sample_deadline_s, stall_deadline_s,
                                     first_use});
           }),
           "links"_a.none(false), "store"_a.none(false), "layout"_a, py::kw_only(),
           "max_output_tokens"_a, "sample_deadline_s"_a, "stall_deadline_s"_a, "first_use"_a = 1)
      .def("wait_ready", &Dispatcher::wait_ready, "timeout_s"_a, ReleaseGil())
      .def("ready_response",
           [](const Dispatcher& dispatcher, int replica) -> std::optional<py::bytes> {
             const auto response = dispatcher.ready_response(replica);
             return response ? std::optional<py::bytes>(*response) : std::nullopt;
           },
           "replica"_a)
      .def("num_refused", &Dispatcher::num_refused, "replica"_a)
      .def("num_sent", &Dispatcher::num_sent, "replica"_a)
      .def("set_credit", &Dispatcher::set_credit, "replica"_a, "max_in_flight"_a, ReleaseGil())
      .def("watch_deadlines", &Dispatcher::watch_deadlines, "on"_a)
      .def("generate", &sut::generate, "samples"_a, "replica"_a, "timeout_s"_a, ReleaseGil())
      .def("fail",
           [](Dispatcher& dispatcher, std::string code, std::string message, int replica) {
             dispatcher.fail({std::move(code), std::move(message), replica});
           },
           "code"_a, "message"_a, "replica"_a = -1, ReleaseGil())
      .def("continue_after_loss", &Dispatcher::continue_after_loss, "on"_a)
      .def("lose",
           [](Dispatcher& dispatcher, int replica, std::string code, std::string message) {
             dispatcher.lose({std::move(code), std::move(message), replica});
           },
           "replica"_a, "code"_a, "message"_a, ReleaseGil())
      .def("losses", &Dispatcher::losses, ReleaseGil())
      .def_property_readonly("failure", py::cpp_function(&Dispatcher::failure, ReleaseGil()))
      .def("stats", &Dispatcher::stats, ReleaseGil())
      .def("samples", &samples_of)
      .def("log_steps", &Dispatcher::log_steps, "on"_a)
      .def("steps", &steps_of)
      .def("num_over",
           [](const Dispatcher& dispatcher) {
             const sut::OverLimits over = dispatcher.num_over();
             return std::pair(over.ttft, over.tpot);
           })
      .def("reset_stats",
           [](Dispatcher& dispatcher,
              std::optional<std::pair<std::int64_t, std::int64_t>> limits_ns) {
             if (limits_ns)
               dispatcher.reset_stats(sut::LatencyLimits{limits_ns->first, limits_ns->second});
             else
               dispatcher.reset_stats();
           },
           "limits_ns"_a = py::none(), ReleaseGil())
      .def("close", &Dispatcher::close, ReleaseGil());
}

void register_loadgen_test(py::module_& m) {
  using sut::LoadGenTest;
  py::class_<LoadGenTest, std::shared_ptr<LoadGenTest>>(m, "LoadGenTest")
      .def(py::init([](std::shared_ptr<sut::Dispatcher> dispatcher, std::string model,
                       std::string scenario, const std::string& mode, std::string user_conf,
                       std::string audit_conf, std::string log_dir, std::string sut_name,
                       std::string qsl_name) {
             return make_shared_without_gil<LoadGenTest>(
                 std::move(dispatcher),
                 LoadGenTest::Options{std::move(model), std::move(scenario), mode_of(mode),
                                      std::move(user_conf), std::move(audit_conf),
                                      std::move(log_dir), std::move(sut_name),
                                      std::move(qsl_name)});
           }),
           "dispatcher"_a.none(false), py::kw_only(), "model"_a, "scenario"_a, "mode"_a,
           "user_conf"_a, "audit_conf"_a, "log_dir"_a, "sut_name"_a, "qsl_name"_a)
      .def_property_readonly("limits_ns", &LoadGenTest::limits_ns)
      .def("start", &LoadGenTest::start, ReleaseGil())
      .def("wait", &LoadGenTest::wait, "timeout_s"_a, ReleaseGil())
      .def("end", &LoadGenTest::end)
      .def_property_readonly("ended", py::cpp_function(&LoadGenTest::ended, ReleaseGil()))
      .def_property_readonly("finished", py::cpp_function(&LoadGenTest::finished, ReleaseGil()));
}

py::dict as_dict(const sut::StepColumns& columns) {
  return py::dict("replica"_a = as_memoryview(columns.replica),
                  "end_ns"_a = as_memoryview(columns.end_ns),
                  "duration_ns"_a = as_memoryview(columns.duration_ns),
                  "num_decoding"_a = as_memoryview(columns.num_decoding),
                  "num_prefill_tokens"_a = as_memoryview(columns.num_prefill_tokens),
                  "context_tokens"_a = as_memoryview(columns.context_tokens));
}

void register_schedule(py::module_& m) {
  using sut::Schedule;
  py::class_<Schedule>(m, "Schedule")
      .def(py::init([](std::vector<std::int64_t> arrival_ns,
                       std::vector<std::int64_t> sample_index) {
             return Schedule{std::move(arrival_ns), std::move(sample_index)};
           }),
           py::kw_only(), "arrival_ns"_a, "sample_index"_a)
      .def("__len__", &Schedule::size)
      .def_property_readonly("arrival_ns",
                             [](const Schedule& s) { return as_memoryview(s.arrival_ns); })
      .def_property_readonly("sample_index",
                             [](const Schedule& s) { return as_memoryview(s.sample_index); });
  m.def("schedule", &sut::make_schedule, py::kw_only(), "model"_a, "scenario"_a, "user_conf"_a,
        "num_samples"_a, ReleaseGil());
}

void register_service_model(py::module_& m) {
  using replay::ServiceModel;
  py::class_<ServiceModel>(m, "ServiceModel")
      .def(py::init([](double base_us, double per_sequence_us, double per_prefill_token_us,
                       double per_context_token_us, double noise, double hiccup_probability,
                       double hiccup_us, std::uint32_t pad_to, std::uint64_t seed) {
             const ServiceModel model{
                 base_us,   per_sequence_us, per_prefill_token_us, per_context_token_us, noise,
                 hiccup_probability, hiccup_us, pad_to, seed};
             model.check();
             return model;
           }),
           py::kw_only(), "base_us"_a, "per_sequence_us"_a, "per_prefill_token_us"_a,
           "per_context_token_us"_a = 0, "noise"_a = 0, "hiccup_probability"_a = 0,
           "hiccup_us"_a = 0, "pad_to"_a = 1, "seed"_a = 0)
      .def("step_ns",
           [](const ServiceModel& model, std::uint32_t num_decoding,
              std::uint32_t num_prefill_tokens, std::uint64_t context_tokens) {
             return model.step_ns({num_decoding, num_prefill_tokens, context_tokens});
           },
           py::kw_only(), "num_decoding"_a, "num_prefill_tokens"_a, "context_tokens"_a);
}

void register_simulation(py::module_& m) {
  using sut::Simulated;
  py::class_<Simulated>(m, "Simulated")
      .def("samples", [](const Simulated& s) { return as_dict(s.samples); })
      .def("steps", [](const Simulated& s) { return as_dict(s.steps); })
      .def_readonly("end_ns", &Simulated::end_ns)
      .def_readonly("num_ttft_over", &Simulated::num_ttft_over)
      .def_readonly("num_tpot_over", &Simulated::num_tpot_over)
      .def_readonly("num_over", &Simulated::num_over)
      .def_readonly("stopped", &Simulated::stopped);
  using Limit = std::optional<std::int64_t>;
  m.def(
      "simulate",
      [](const sut::Schedule& schedule, const std::vector<std::uint32_t>& prompt_tokens,
         const std::vector<std::uint32_t>& output_tokens, const replay::ServiceModel& service,
         int num_replicas, std::uint32_t max_num_seqs, std::uint32_t max_num_batched_tokens,
         std::uint32_t max_model_len, std::optional<std::uint32_t> credit, Limit ttft_limit_ns,
         Limit tpot_limit_ns, Limit stop_over, Limit stop_after_ns, bool log_steps,
         std::vector<double> step_factors) {
        const sut::SimulatedSystem system{
            service, {max_num_seqs, max_model_len, max_num_batched_tokens}, num_replicas,
            credit.value_or(max_num_seqs + std::max(1u, max_num_seqs / 4)),
            std::move(step_factors)};
        return sut::simulate(schedule, system,
                             {prompt_tokens, output_tokens, ttft_limit_ns, tpot_limit_ns,
                              stop_over, stop_after_ns, log_steps});
      },
      py::kw_only(), "schedule"_a, "prompt_tokens"_a, "output_tokens"_a, "service"_a,
      "num_replicas"_a, "max_num_seqs"_a, "max_num_batched_tokens"_a, "max_model_len"_a,
      "credit"_a = py::none(), "ttft_limit_ns"_a = py::none(), "tpot_limit_ns"_a = py::none(),
      "stop_over"_a = py::none(), "stop_after_ns"_a = py::none(), "log_steps"_a = false,
      "step_factors"_a = std::vector<double>{}, ReleaseGil());
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "LoadGen and the dispatcher, in C++.";
  m.attr("LOADGEN_VERSION") = SUT_LOADGEN_VERSION;
  m.def("make_key_pair", [] {
    const sut::curve::KeyPair pair = sut::curve::make_key_pair();
    return std::pair(pair.public_key, pair.secret_key);
  });
  register_wire_layout(m);
  register_sample_store(m);
  register_failure(m);
  register_replica_stats(m);
  register_stats(m);
  register_replica_links(m);
  register_dispatcher(m);
  register_loadgen_test(m);
  register_schedule(m);
  register_service_model(m);
  register_simulation(m);
}
