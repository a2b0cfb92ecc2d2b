#include "simulation/simulation.h"

#include <algorithm>
#include <string>

#include "bindings.h"
#include "simulation/schedule.h"

namespace bindings {
namespace {

using namespace pybind11::literals;

py::dict steps_as_dict(const sut::StepColumns& columns) {
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
      .def("samples", [](const Simulated& s) { return samples_as_dict(s.samples); })
      .def("steps", [](const Simulated& s) { return steps_as_dict(s.steps); })
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

void add_simulation(py::module_& m) {
  register_schedule(m);
  register_service_model(m);
  register_simulation(m);
}

}  // namespace bindings
