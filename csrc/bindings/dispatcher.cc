#include "dispatcher.h"

#include <string>
#include <utility>

#include "bindings.h"
#include "generate.h"

namespace bindings {
namespace {

using namespace pybind11::literals;

py::dict samples_of(const sut::Dispatcher& dispatcher) {
  sut::SampleColumns columns;
  {
    const py::gil_scoped_release release;
    columns = dispatcher.samples();
  }
  return samples_as_dict(std::move(columns));
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

}  // namespace

void add_dispatcher(py::module_& m) {
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
      .def("await_rejoin", &Dispatcher::await_rejoin, "on"_a)
      .def("rejoin", &Dispatcher::rejoin, "replica"_a, "warmed"_a, ReleaseGil())
      .def_property_readonly_static("WARM_UP_FIRST_USE",
                                    [](const py::object&) { return Dispatcher::kWarmUpFirstUse; })
      .def("lose",
           [](Dispatcher& dispatcher, int replica, std::string code, std::string message) {
             dispatcher.lose({std::move(code), std::move(message), replica});
           },
           "replica"_a, "code"_a, "message"_a, ReleaseGil())
      .def("losses", &Dispatcher::losses, ReleaseGil())
      .def_property_readonly("failure", py::cpp_function(&Dispatcher::failure, ReleaseGil()))
      .def("stats", &Dispatcher::stats, ReleaseGil())
      .def("live_stats", &Dispatcher::live_stats, ReleaseGil())
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

}  // namespace bindings
