#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace sut {
struct SampleColumns;
}

// sut._core, for Python: no other folder includes pybind11. Contracts are in sut/_core.pyi.
namespace bindings {

namespace py = pybind11;

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

// A column of int64 that Python reads in place, without numpy.
py::memoryview as_memoryview(const std::vector<std::int64_t>& column);

// Takes the columns one by one, so that they are in memory twice for one column at a time.
py::dict samples_as_dict(sut::SampleColumns columns);

// Each adds its types to the module. Those of a later one's arguments come first.
void add_inputs(py::module_& m);    // what a dispatcher is made of
void add_counts(py::module_& m);    // what it reports
void add_dispatcher(py::module_& m);
void add_loadgen_test(py::module_& m);
void add_simulation(py::module_& m);

}  // namespace bindings
