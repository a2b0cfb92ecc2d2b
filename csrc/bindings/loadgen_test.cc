#include "loadgen_test.h"

#include <stdexcept>
#include <string>

#include "bindings.h"

namespace bindings {
namespace {

sut::LoadGenTest::Mode mode_of(const std::string& mode) {
  if (mode == "performance") return sut::LoadGenTest::Mode::kPerformance;
  if (mode == "accuracy") return sut::LoadGenTest::Mode::kAccuracy;
  throw std::invalid_argument("unknown mode '" + mode + "': expected performance or accuracy");
}

}  // namespace

void add_loadgen_test(py::module_& m) {
  using namespace pybind11::literals;
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

}  // namespace bindings
