#include <map>
#include <string>

#include "bindings.h"
#include "dispatcher.h"
#include "stats.h"

namespace bindings {
namespace {

std::map<std::string, std::int64_t> as_map(const sut::Quantiles& quantiles) {
  return {quantiles.begin(), quantiles.end()};
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
      .def_readonly("rejoined_ns", &sut::ReplicaLoss::rejoined_ns)
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

}  // namespace

void add_counts(py::module_& m) {
  register_failure(m);
  register_replica_stats(m);
  register_stats(m);
}

}  // namespace bindings
